/* Decision regions of the plane. */
(() => {
  "use strict";
  const { views } = globalThis.mcExplorers;

  /* Lines where `field`, a square of side n, crosses zero: marching squares, as SVG path data. */
  function zeroLine(field, n) {
    const place = (i) => ((i + 0.5) * 1000) / n;
    let d = "";
    for (let r = 0; r + 1 < n; r++) {
      for (let c = 0; c + 1 < n; c++) {
        const a = field[r * n + c], b = field[r * n + c + 1];
        const e = field[(r + 1) * n + c + 1], f = field[(r + 1) * n + c];
        const cuts = []; // on the upper, right, lower, left side, in this order
        if (a > 0 !== b > 0) cuts.push([place(c + a / (a - b)), place(r)]);
        if (b > 0 !== e > 0) cuts.push([place(c + 1), place(r + b / (b - e))]);
        if (f > 0 !== e > 0) cuts.push([place(c + f / (f - e)), place(r + 1)]);
        if (a > 0 !== f > 0) cuts.push([place(c), place(r + a / (a - f))]);
        for (let k = 0; k + 1 < cuts.length; k += 2) {
          const [p, q] = [cuts[k], cuts[k + 1]];
          d += `M${p[0].toFixed(0)} ${p[1].toFixed(0)}L${q[0].toFixed(0)} ${q[1].toFixed(0)}`;
        }
      }
    }
    return d;
  }

  views.regions = (root, { side, levels, colours }) => {
    const canvas = root.querySelector(".mc-regions canvas");
    const edge = root.querySelector(".mc-edge");
    const brush = canvas.getContext("2d");
    const image = brush.createImageData(side, side);
    const field = new Float32Array(side * side);
    canvas.style.backgroundImage = "none";
    return (codes) => {
      let d = "";
      for (let k = 0; k < (colours.length > 2 ? colours.length : 1); k++) {
        for (let i = 0; i < field.length; i++) {
          const code = codes[i], sure = (code % levels) + 0.5;
          field[i] = Math.floor(code / levels) === k ? sure : -sure;
        }
        d += zeroLine(field, side);
      }
      edge.setAttribute("d", d);
      for (let i = 0; i < field.length; i++) {
        const code = codes[i], top = Math.floor(code / levels);
        image.data.set(colours[top], 4 * i);
        image.data[4 * i + 3] = 25 + (130 * (code % levels)) / (levels - 1);
      }
      brush.putImageData(image, 0, 0);
    };
  };
})();
