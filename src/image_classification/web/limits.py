"""The server's limits, so that no client can fill its memory or stall it."""

LARGEST_BODY = 2**24  # bytes
LARGEST_JSON = 2**22  # bytes: 1,000 images of MNIST; each byte costs more than one of memory
LARGEST_FEEDBACK = 2**16  # bytes
MOST_IN_FLIGHT = 2**26  # bytes of all bodies that are being read or decoded
MOST_REQUESTS = 256  # that are being answered at once
MOST_CONNECTIONS = 512  # half of the files that a process may usually open
MOST_PIPELINED = 16  # requests of a connection that wait for the answers to earlier ones
LARGEST_HEADER = 2**16 + 2**18  # bytes; 2**18 may arrive at once, of several requests
MOST_IMAGES = 1000  # of one request
MOST_QUEUED = 4096  # images that wait for the engine
MOST_PIXELS = 20_000_000  # of an image file, before it is brought to the model's size

REQUEST_SECONDS = 15.0  # to send a request, and to read a part of its answer
ANSWER_SECONDS = 10.0  # to answer it, from then on
KEEP_ALIVE_SECONDS = 60.0  # between two requests of a connection
RETRY_AFTER = 1  # seconds, of the header of that name in a 503

OBSERVE_SECONDS = 10.0  # between two writes of the observations
WATCH_SECONDS = 0.5  # between two checks of the records
RETRY_SECONDS = 300.0  # until a champion that failed to load is tried again
EXPORT_SECONDS = 900.0  # for making an artifact that is missing
