"use strict";
// Sorts, filters and downloads. The page is complete without it: rows are in the markup, this only moves and hides them.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const column = new Map(data.columns.map((name, index) => [name, index]));
  const table = document.getElementById("rows");
  const form = document.getElementById("controls");
  const count = document.getElementById("count");
  const headers = [...table.querySelectorAll("th[data-key]")];
  const bodies = [...table.tBodies];
  const lines = [...table.querySelectorAll("tr[data-row]")].map((line) => ({
    line,
    home: line.parentElement,
    index: Number(line.dataset.row),
    record: data.rows[Number(line.dataset.row)],
  }));
  const mixed = table.createTBody(); // where rows of all blocks stand when they are not kept apart
  const FIRST = { key: "rank", sign: 1 };
  let order = FIRST;

  const value = (one, name) => one.record[column.get(name)];

  // Order two rows; what has no value comes last in either direction, equal ones keep the page's order.
  function compare(one, other) {
    const [a, b] = [value(one, order.key), value(other, order.key)];
    if ((a === null) !== (b === null)) return a === null ? 1 : -1;
    if (a === null || a === b) return one.index - other.index;
    return (a < b ? -1 : 1) * order.sign;
  }

  function isShown(one) {
    return [...form.querySelectorAll("select")].every((select) => !select.value || value(one, select.name) === select.value);
  }

  function shownLines() {
    const places = new Map([...table.rows].map((row, place) => [row, place]));
    return lines.filter((one) => !one.line.hidden).sort((a, b) => places.get(a.line) - places.get(b.line));
  }

  function update() {
    const apart = form.elements.apart.checked;
    table.classList.toggle("apart", apart);
    for (const one of [...lines].sort(compare)) {
      one.line.hidden = !isShown(one);
      (apart ? one.home : mixed).append(one.line);
    }
    const filled = new Set(lines.filter((one) => !one.line.hidden).map((one) => one.home));
    for (const body of bodies) body.hidden = !apart || !filled.has(body);
    mixed.hidden = apart;
    for (const article of document.querySelectorAll("article[data-block], li[data-block]")) {
      article.hidden = !filled.has(bodies[Number(article.dataset.block)]);
    }
    for (const header of headers) {
      if (header.dataset.key !== order.key) header.removeAttribute("aria-sort");
      else header.setAttribute("aria-sort", order.sign > 0 ? "ascending" : "descending");
    }
    const shown = lines.filter((one) => !one.line.hidden).length;
    count.textContent = shown ? `${shown} of ${lines.length} rows` : "No row is left: set a filter back to “all”.";
  }

  function sortBy(header) {
    const first = header.dataset.first === "ascending" ? 1 : -1;
    order = { key: header.dataset.key, sign: header.dataset.key === order.key ? -order.sign : first };
    update();
  }

  // A spreadsheet would run a text that begins like a formula: an apostrophe keeps it text. Numbers stay as they are.
  function field(content) {
    if (content === null) return "";
    if (typeof content !== "string") return String(content);
    const text = /^[=+\-@\t\r]/.test(content) ? `'${content}` : content;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  function download(records, name) {
    const text = [data.columns, ...records].map((record) => record.map(field).join(",") + "\n").join("");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  for (const header of headers) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sortBy(header));
    header.append(button);
  }
  form.addEventListener("change", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("all-rows").addEventListener("click", () => {
    order = FIRST;
    form.reset();
    update();
  });
  document.getElementById("csv-shown").addEventListener("click", () =>
    download(shownLines().map((one) => one.record), "leaderboard_shown.csv"));
  document.getElementById("csv-all").addEventListener("click", () => download(data.rows, "leaderboard.csv"));
  form.hidden = false;
  update();
})();
