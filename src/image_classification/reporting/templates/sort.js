// A click on the head of a column sorts its table by it; a second click reverses the order.
// Without this script the tables are as they are, without buttons.
const number = (cell) => {
  const found = cell.textContent.trim().match(/^[+-]?[\d,]*\.?\d+(e[+-]?\d+)?(?=$|,? )/);
  return found ? Number(found[0].replaceAll(",", "")) : NaN;
};

function sort(head) {
  const { parentElement: heads, cellIndex } = head;
  const rows = [...heads.parentElement.rows].slice(1);
  const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const compare = (one, other) => {
    const [a, b] = [one.cells[cellIndex], other.cells[cellIndex]];
    const [x, y] = [number(a), number(b)];
    if (Number.isNaN(x) && Number.isNaN(y))
      return direction * a.textContent.localeCompare(b.textContent, "en", { numeric: true });
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y); // no number: last
    return direction * (x - y);
  };
  heads.parentElement.append(...rows.sort(compare));
  for (const cell of heads.cells) cell.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
}

for (const head of document.querySelectorAll('th[scope="col"]')) {
  const button = document.createElement("button");
  button.type = "button";
  button.title = "Sort by this column";
  button.append(...head.childNodes);
  button.addEventListener("click", () => sort(head));
  head.append(button);
}
