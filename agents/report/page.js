"use strict";
// Tables: a heading's button sorts its table, ascending first. Cells without a value stay last either way.
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, table = head.closest("table"), body = table.tBodies[0];
    const descending = head.getAttribute("aria-sort") === "ascending";
    const at = head.cellIndex, missing = "–";
    for (const other of head.parentElement.cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const keyed = Array.from(body.rows, (row) => {
      const cell = row.cells[at], text = cell.textContent;
      return { row, text, number: "k" in cell.dataset ? Number(cell.dataset.k) : null, empty: text === missing };
    });
    keyed.sort((one, two) => {
      if (one.empty || two.empty) return one.empty - two.empty;
      const numbers = one.number !== null && two.number !== null;
      const difference = numbers
        ? (one.number > two.number) - (one.number < two.number)
        : one.text.localeCompare(two.text, "en", { numeric: true });
      return descending ? -difference : difference;
    });
    body.append(...keyed.map((one) => one.row));
  });
}

// Charts: a point shows its run while it is hovered or focused; arrow keys go from point to point.
const tip = document.getElementById("tip");
const hide = () => { tip.hidden = true; };
const show = (point) => {
  tip.textContent = point.dataset.tip;
  tip.hidden = false;
  const at = point.getBoundingClientRect(), own = tip.getBoundingClientRect(), room = 8;
  const left = Math.min(Math.max(at.left + at.width / 2 - own.width / 2, room), innerWidth - own.width - room);
  const above = at.top - own.height - room;
  tip.style.left = `${Math.max(left, room)}px`;
  tip.style.top = `${above > room ? above : at.bottom + room}px`;
};
for (const chart of document.querySelectorAll(".chart")) {
  const points = Array.from(chart.querySelectorAll(".pt"));
  points.forEach((point, index) => {
    const title = point.querySelector("title");
    point.dataset.tip = title.textContent;
    title.remove(); // else a browser shows it, too
    point.setAttribute("tabindex", index === 0 ? "0" : "-1");
    point.addEventListener("mouseenter", () => show(point));
    point.addEventListener("mouseleave", hide);
    point.addEventListener("focus", () => show(point));
    point.addEventListener("blur", hide);
    point.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") hide();
      if (!step) return;
      event.preventDefault();
      const next = points[(index + step + points.length) % points.length];
      point.setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus();
    });
  });
}
addEventListener("scroll", hide, { passive: true });
