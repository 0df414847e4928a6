/* How far each layer has gone, as bars. */
(() => {
  "use strict";
  const { views, write } = globalThis.mcExplorers;

  views.ways = (root, { reach }) => {
    const rows = [...root.querySelectorAll(".mc-ways li")].map((row) => ({
      bar: row.querySelector("i"),
      number: row.querySelector("b"),
    }));
    return (code) => {
      // 32-bit floats: the residual, then the way of each layer; a copy, for they may lie askew.
      const ways = new Float32Array(code.slice().buffer).subarray(1);
      rows.forEach(({ bar, number }, k) => {
        bar.style.width = `${Math.min((100 * ways[k]) / reach, 100)}%`;
        write(number, ways[k].toFixed(2));
      });
    };
  };
})();
