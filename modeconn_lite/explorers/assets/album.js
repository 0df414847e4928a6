/* Test images and what the network takes them for. */
(() => {
  "use strict";
  const { views, set, write } = globalThis.mcExplorers;

  views.album = (root, { classes, labels, each: size }) => {
    const count = root.querySelector(".mc-count");
    const tiles = [...root.querySelectorAll(".mc-tile")].map((tile) => ({
      tile,
      rects: [...tile.querySelectorAll("rect")],
      name: tile.querySelector(".mc-says b"),
      verdict: tile.querySelector(".mc-says i"),
      sure: tile.querySelector(".mc-says span:last-child"),
    }));
    return (codes) => {
      if (!codes.length) return;
      let hits = 0;
      tiles.forEach(({ tile, rects, name, verdict, sure }, k) => {
        const code = codes.subarray(k * size, (k + 1) * size);
        let [top, value] = code;
        if (rects.length) {
          value = Math.max(...code);
          top = code.indexOf(value);
          rects.forEach((rect, c) => {
            rect.setAttribute("height", code[c]);
            if (c !== labels[k]) rect.setAttribute("class", c === top ? "mc-top" : "mc-other");
          });
        }
        const right = top === labels[k];
        hits += right;
        tile.dataset.is = right ? "right" : "wrong";
        set(verdict, { "aria-label": tile.dataset.is });
        write(verdict, right ? "✓" : "✗");
        write(name, classes[top]);
        write(sure, `${Math.round((100 * value) / 255)}%`);
      });
      write(count, String(hits));
    };
  };
})();
