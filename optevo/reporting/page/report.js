"use strict";
(() => {
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 32rem)");
  const touch = window.matchMedia("(pointer: coarse)");
  const button = document.getElementById("theme");
  const plots = [];

  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);

  // What the page's colours and width make of a layout, as the flat keys that Plotly.relayout takes.
  function dressed(layout) {
    const style = getComputedStyle(root);
    const colour = (name) => style.getPropertyValue(name).trim();
    const changes = {
      "font.color": colour("--ink"),
      "font.size": narrow.matches ? 11 : 13,
      "hoverlabel.bgcolor": colour("--panel"),
      "hoverlabel.bordercolor": colour("--line"),
      "hoverlabel.font.color": colour("--ink"),
    };
    for (const axis of Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key))) {
      changes[`${axis}.gridcolor`] = colour("--grid");
      changes[`${axis}.linecolor`] = colour("--line");
      changes[`${axis}.title.font.size`] = changes["font.size"];
    }
    return changes;
  }

  function assign(layout, changes) {
    for (const [path, value] of Object.entries(changes)) {
      const names = path.split(".");
      const last = names.pop();
      names.reduce((inner, name) => (inner[name] ??= {}), layout)[last] = value;
    }
    return layout;
  }

  function draw(block) {
    const place = document.getElementById(block.dataset.figure);
    const figure = JSON.parse(block.textContent);
    const options = { responsive: true, displaylogo: false, displayModeBar: false };
    if (touch.matches) figure.layout.dragmode = false; // a finger on a figure scrolls the page
    Plotly.newPlot(place, figure.data, assign(figure.layout, dressed(figure.layout)), options);
    plots.push(place);
  }

  function dress(more = {}) {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", isDark() ? "Switch to light colours" : "Switch to dark colours");
    for (const place of plots) Plotly.relayout(place, { ...dressed(place.layout), ...more });
  }

  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    dress();
  });
  system.addEventListener("change", () => dress());
  narrow.addEventListener("change", () => dress());
  dress();
  // One at a time, so that a long report can be read and scrolled while it draws.
  const waiting = [...document.querySelectorAll("script[data-figure]")];
  (function next() {
    if (!waiting.length) {
      root.dataset.drawn = String(plots.length);
      return;
    }
    draw(waiting.shift());
    setTimeout(next, 0);
  })();

  // On paper: all of it, dark on white, as wide as A4 and Letter leave room for.
  let theme;
  window.addEventListener("beforeprint", () => {
    while (waiting.length) draw(waiting.shift());
    theme = root.dataset.theme ?? "";
    root.dataset.theme = "light";
    dress({ width: 640 });
  });
  window.addEventListener("afterprint", () => {
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    dress({ width: null, autosize: true });
  });
})();
