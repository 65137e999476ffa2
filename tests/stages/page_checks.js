{
  // Labels of a chart that lie on each other, or outside the window.
  overlaps() {
    const found = [];
    for (const chart of document.querySelectorAll(".chart")) {
      const boxes = [...chart.querySelectorAll("text")].map((text) => [
        text.textContent,
        text.getBoundingClientRect(),
      ]);
      boxes.forEach(([a, p], i) => {
        if (p.left < 0 || p.right > innerWidth) found.push([a, "outside"]);
        for (const [b, q] of boxes.slice(i + 1)) {
          const beside = p.left > q.right - 0.5 || q.left > p.right - 0.5;
          const below = p.top > q.bottom - 1.5 || q.top > p.bottom - 1.5;
          if (!beside && !below) found.push([a, b]);
        }
      });
    }
    return found;
  },

  // The least contrast (WCAG 2.1) of a text to what lies behind it, and whose it is.
  contrast() {
    const canvas = document.createElement("canvas");
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    const rgba = (colour) => {
      pen.clearRect(0, 0, 1, 1);
      pen.fillStyle = colour;
      pen.fillRect(0, 0, 1, 1);
      return [...pen.getImageData(0, 0, 1, 1).data];
    };
    const linear = (v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
    const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const behind = (node) => {
      while (node && rgba(getComputedStyle(node).backgroundColor)[3] < 255) node = node.parentElement;
      return rgba(getComputedStyle(node || document.body).backgroundColor);
    };
    let least = [99, ""];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let text = texts.nextNode(); text; text = texts.nextNode()) {
      const node = text.parentElement;
      if (!text.textContent.trim() || ["SCRIPT", "STYLE", "OPTION"].includes(node.tagName)) continue;
      if (!node.checkVisibility() || node.closest(".sr, .skip")) continue;
      const style = getComputedStyle(node);
      const front = rgba(node instanceof SVGElement ? style.fill : style.color);
      const [a, b] = [light(front), light(behind(node))].sort((x, y) => y - x);
      const ratio = (a + 0.05) / (b + 0.05);
      if (ratio < least[0]) least = [ratio, `${node.className} ${text.textContent.trim()}`];
    }
    return least;
  },

  // What has the focus.
  focused() {
    const node = document.activeElement;
    if (node.dataset.cell) return "cell";
    return node.closest("#marks") ? "point" : node.id || node.className || node.tagName;
  },

  // Which of the cells and points has the focus.
  number() {
    const all = document.querySelectorAll("button[data-cell], #marks path");
    return [...all].indexOf(document.activeElement);
  },
}
