"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const MOST = 60; // images of a cell that are listed

  // Every word becomes text, never markup.
  const element = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const named = (label) => {
    const name = element("bdi", "", data.classes[label]);
    name.title = data.classes[label];
    return name;
  };
  const count = (number, noun) =>
    `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
  const sure = (share) =>
    share >= 0.9995 ? "> 99.9 % sure" : `${(100 * share).toFixed(1)} % sure`;

  const tile = (at) => {
    const place = data.tile[at];
    if (place < 0) return element("span", "t gone", data.note[at] || "no room for its picture");
    const sheet = Math.floor(place / data.sheet);
    const made = element("span", `t s${sheet} p${place % data.sheet}`);
    made.setAttribute("role", "img");
    made.setAttribute("aria-label", data.path[at]);
    return made;
  };
  const path = (at) => {
    const made = element("bdi", "path", data.path[at]);
    made.title = data.path[at];
    return made;
  };

  // What each run says of each picture that it was given.
  const runs = {};
  for (const [letter, run] of Object.entries(data.runs)) {
    const said = new Map();
    run.picture.forEach((at, i) => said.set(at, { label: run.guess[i], share: run.share[i] }));
    const cells = new Map(run.cells.map(([t, p, n]) => [`${t},${p}`, n]));
    runs[letter] = { said, cells };
  }

  // ---- the images of a cell
  const showCell = (box, key) => {
    const run = runs[box.dataset.run];
    const [is, as] = key.split(",").map(Number);
    const total = run.cells.get(key) || 0;
    const found = [...run.said].filter(([at, guess]) => data.label[at] === is && guess.label === as);
    found.sort((a, b) => (data.tile[b[0]] >= 0) - (data.tile[a[0]] >= 0) || b[1].share - a[1].share);
    const panel = box.querySelector(".panel");
    const title = element("h4");
    title.append(`${count(total, "image")} of `, named(is));
    if (is === as) title.append(", recognised");
    else title.append(" taken for ", named(as));
    const list = element("ul", "gallery");
    for (const [at, guess] of found.slice(0, MOST)) {
      const item = element("li");
      const words = element("p");
      words.append(element("span", "sure", sure(guess.share)), path(at));
      item.append(tile(at), words);
      list.append(item);
    }
    const shown = Math.min(found.length, MOST);
    panel.replaceChildren(title, list);
    if (shown < total) {
      panel.append(element("p", "note", `${shown.toLocaleString("en")} of them are shown.`));
    }
  };
  const press = (box, button) => {
    for (const other of box.querySelectorAll("button[aria-pressed]")) other.removeAttribute("aria-pressed");
    if (button) button.setAttribute("aria-pressed", "true");
  };

  // ---- tables of cells: one stop for Tab, arrows move
  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const middle = (node) => {
    const box = node.getBoundingClientRect();
    return [box.left + box.width / 2, box.top + box.height / 2];
  };
  // The nearest place in a direction; what lies aside counts double.
  const next = (from, places, [dx, dy]) => {
    let best = -1, least = Infinity;
    places.forEach(([x, y], i) => {
      const ahead = (x - from[0]) * dx + (y - from[1]) * dy;
      const aside = Math.abs((x - from[0]) * dy) + Math.abs((y - from[1]) * dx);
      if (ahead > 0.5 && ahead + 2 * aside < least) [best, least] = [i, ahead + 2 * aside];
    });
    return best;
  };
  // Arrows go to what is nearest, and may miss some; Page Up and Page Down miss none.
  const TURNS = { PageDown: 1, PageUp: -1 };
  const move = (event, at, places) => {
    if (!(event.key in STEPS || event.key in TURNS)) return -1;
    event.preventDefault();
    if (event.key in STEPS) return next(places[at], places, STEPS[event.key]);
    return (at + TURNS[event.key] + places.length) % places.length;
  };
  for (const box of document.querySelectorAll(".matrix")) {
    const buttons = [...box.querySelectorAll("button[data-cell]")];
    if (buttons.length) buttons[0].tabIndex = 0;
    box.addEventListener("click", (event) => {
      const button = event.target.closest("button[data-cell]");
      if (!button) return;
      press(box, button);
      showCell(box, button.dataset.cell);
    });
    box.addEventListener("keydown", (event) => {
      const at = buttons.indexOf(event.target);
      const to = at < 0 ? -1 : move(event, at, buttons.map(middle));
      if (to < 0) return;
      buttons[at].tabIndex = -1;
      buttons[to].tabIndex = 0;
      buttons[to].focus();
    });
    const heat = box.querySelector(".heat");
    if (heat) largeMatrix(box, heat);
  }

  function largeMatrix(box, heat) {
    const { cells } = runs[box.dataset.run];
    const places = [...cells.keys()].map((key) => key.split(",").map(Number).reverse());
    const cursor = heat.querySelector(".cursor");
    const readout = box.querySelector(".readout");
    let at = null; // the cell under the cursor: predicted, true
    const go = (place) => {
      at = place;
      const [as, is] = place;
      cursor.setAttribute("x", as);
      cursor.setAttribute("y", is);
      cursor.removeAttribute("hidden");
      const number = cells.get(`${is},${as}`) || 0;
      const few = number || data.runs[box.dataset.run].all ? "" : ", or too few to be here,";
      readout.replaceChildren(`${count(number, "image")}${few} of `, named(is));
      readout.append(is === as ? ", recognised" : " taken for ");
      if (is !== as) readout.append(named(as));
      return number;
    };
    const under = (event) => {
      const area = heat.getBoundingClientRect();
      const side = data.classes.length;
      const to = (share) => Math.max(0, Math.min(side - 1, Math.floor(share * side)));
      return [to((event.clientX - area.left) / area.width), to((event.clientY - area.top) / area.height)];
    };
    heat.addEventListener("pointermove", (event) => go(under(event)));
    heat.addEventListener("click", (event) => {
      if (!go(under(event))) return;
      press(box, null);
      showCell(box, `${at[1]},${at[0]}`);
    });
    heat.addEventListener("keydown", (event) => {
      if (!at) {
        if (!(event.key in STEPS || event.key in TURNS)) return;
        event.preventDefault();
        go(places[0]);
        return;
      }
      const spot = places.findIndex(([as, is]) => as === at[0] && is === at[1]);
      const spots = spot < 0 ? [...places, at] : places; // a pointer may be between
      const to = move(event, spot < 0 ? places.length : spot, spots);
      if (to >= 0) {
        go(spots[to]);
        cursor.scrollIntoView({ block: "nearest", inline: "nearest" });
      } else if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        if (cells.has(`${at[1]},${at[0]}`)) showCell(box, `${at[1]},${at[0]}`);
      }
    });
  }

  // ---- the map
  const points = document.getElementById("points");
  if (points) embedding(points);

  function embedding(svg) {
    const marks = [...document.getElementById("marks").children];
    const places = marks.map((mark) => mark.getAttribute("d").slice(1).split(/[ m]/, 2).map(Number));
    const here = document.getElementById("here");
    const preview = document.getElementById("preview");
    const whose = document.getElementById("map-run");
    let letter = Object.keys(runs)[0];
    let shown = -1; // point in the preview
    let stopped = 0; // point that Tab leads to
    let chosen = "";

    const describe = (at) => {
      const said = runs[letter].said.get(at);
      const is = data.classes[data.label[at]];
      if (!said) return `${is}, ${data.splits[data.split[at]]}`;
      return said.label === data.label[at]
        ? `${is}, recognised, ${sure(said.share)}`
        : `${is}, taken for ${data.classes[said.label]}, ${sure(said.share)}`;
    };
    const show = (i) => {
      const at = data.map[i];
      shown = i;
      here.setAttribute("cx", places[i][0]);
      here.setAttribute("cy", places[i][1]);
      here.removeAttribute("hidden");
      const said = runs[letter].said.get(at);
      const is = element("p", "is");
      is.append(named(data.label[at]));
      const rows = [tile(at), is];
      if (said && said.label !== data.label[at]) {
        const as = element("p", "as", "taken for ");
        as.append(named(said.label));
        rows.push(as);
      }
      rows.push(element("p", "sure", said ? sure(said.share) : `in ${data.splits[data.split[at]]}`));
      const where = element("p");
      where.append(path(at));
      rows.push(where);
      preview.replaceChildren(...rows);
    };
    const visible = (i) => chosen === "" || data.label[data.map[i]] === Number(chosen);

    svg.addEventListener("pointermove", (event) => hover(event));
    svg.addEventListener("pointerdown", (event) => hover(event));
    function hover(event) {
      const matrix = svg.getScreenCTM();
      if (!matrix) return;
      const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
      let best = -1, least = 24 * 24;
      places.forEach(([px, py], i) => {
        const far = (px - x) ** 2 + (py - y) ** 2;
        if (far < least && visible(i)) [best, least] = [i, far];
      });
      if (best >= 0 && best !== shown) show(best);
    }

    const stop = (i, focus) => {
      marks[stopped].tabIndex = -1;
      marks[i].setAttribute("tabindex", "0");
      marks[i].setAttribute("role", "img");
      marks[i].setAttribute("aria-label", describe(data.map[i]));
      stopped = i;
      if (focus) marks[i].focus();
    };
    stop(0, false);
    svg.addEventListener("focusin", (event) => {
      const i = marks.indexOf(event.target);
      if (i >= 0) show(i);
    });
    svg.addEventListener("keydown", (event) => {
      const i = marks.indexOf(event.target);
      if (i < 0) return;
      // The point itself is among them, even where another class has been chosen.
      const open = marks.map((_, j) => j).filter((j) => j === i || visible(j));
      const to = move(event, open.indexOf(i), open.map((j) => places[j]));
      if (to >= 0) stop(open[to], true);
    });
    document.getElementById("map-class").addEventListener("change", (event) => {
      chosen = event.target.value;
      marks.forEach((mark, i) => mark.classList.toggle("dim", !visible(i)));
    });
    if (whose) {
      whose.addEventListener("change", () => {
        letter = whose.value;
        for (const ring of svg.querySelectorAll(".ring")) {
          ring.toggleAttribute("hidden", ring.dataset.run !== letter);
        }
      });
    }
  }
})();
