"use strict";
// Sorts, filters and unfolds what is on a page. Without it the page still reads, worst cases first.
for (const button of document.querySelectorAll("table.sortable thead button")) {
  // A heading's button sorts the rows by its column; empty values stay last either way.
  button.addEventListener("click", () => {
    const heading = button.closest("th");
    const body = heading.closest("table").tBodies[0];
    const descending = heading.getAttribute("aria-sort") === "ascending";
    const compare = (a, b) => {
      const [left, right] = [a, b].map((row) => row.cells[heading.cellIndex]);
      const [x, y] = [left, right].map((cell) => cell.dataset.value ?? (cell.textContent.startsWith("—") ? "" : undefined));
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = x === undefined
        ? left.textContent.trim().localeCompare(right.textContent.trim(), "en", { numeric: true })
        : x - y;
      return descending ? -order : order;
    };
    for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    body.append(...[...body.rows].sort(compare));
  });
}

for (const controls of document.querySelectorAll("form.controls")) {
  const table = document.getElementById(controls.dataset.table);
  const shown = controls.querySelector("output");
  const choices = controls.querySelectorAll("select");  // each by the rows' data of its name
  const apply = () => {
    const words = controls.elements.words.value.trim().toLowerCase();
    const wanted = [...choices].map(({ name, value }) => [name, value]);
    let count = 0;
    for (const row of table.tBodies[0].rows) {
      const fits = wanted.every(([name, value]) => !value || row.dataset[name] === value);
      row.hidden = !(fits && row.cells[0].textContent.toLowerCase().includes(words));
      count += !row.hidden;
    }
    shown.textContent = `${count} of ${table.tBodies[0].rows.length}`;
    table.classList.toggle("all", Boolean(controls.elements.all?.checked));
  };
  controls.addEventListener("input", apply);
  controls.addEventListener("submit", (event) => event.preventDefault());
  apply();  // a browser that comes back to the page fills the fields in again
}

// A picture's button shows it across the whole page, and small again.
for (const button of document.querySelectorAll("button.zoom")) {
  button.addEventListener("click", () => {
    button.setAttribute("aria-expanded", String(button.getAttribute("aria-expanded") !== "true"));
  });
}

// What is folded on the screen is printed in full.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const details of folded) details.open = true;
});
addEventListener("afterprint", () => folded.forEach((details) => { details.open = false; }));
