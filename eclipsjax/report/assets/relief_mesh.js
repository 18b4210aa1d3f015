// The mesh of the 3D view: x to the right, y up the image (row 0 is farthest in y), z up; heights in nm.
"use strict";

(() => {
  const tools = window.eclipsjax;
  // Indices have 16 bits, which every WebGL has: large meshes are drawn in bands of rows.
  const MOST_VERTICES = 65535;

  function bands(columns, rows) {
    const most = Math.min(rows, Math.floor(MOST_VERTICES / columns));
    const out = [];
    for (let first = 0; first < rows - 1; first += most - 1) {
      out.push({ first, rows: Math.min(most, rows - first) });
    }
    return out;
  }

  function indices(columns, rows) {
    const out = new Uint16Array(6 * (columns - 1) * (rows - 1));
    let n = 0;
    for (let r = 0; r < rows - 1; r++) {
      for (let c = 0; c < columns - 1; c++) {
        const a = r * columns + c, b = a + columns;
        out.set([a, b, a + 1, a + 1, b, b + 1], n);
        n += 6;
      }
    }
    return out;
  }

  function difference(values, at, step, index, count) {
    if (count < 2) return 0;
    const back = index > 0 ? step : 0, on = index < count - 1 ? step : 0;
    return (values[at + on] - values[at - back]) / ((back + on) / step);
  }

  // Per vertex: x, y (shares of the longer side), z (nm above the lowest), dz/dx, dz/dy (y up), grey (0 to 1).
  function vertices(heights, grey, columns, rows, pixel_nm) {
    const out = new Float32Array(6 * columns * rows);
    const longer = Math.max(columns, rows, 2) - 1;
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++) {
        const at = r * columns + c;
        const along = difference(heights, at, 1, c, columns), down = difference(heights, at, columns, r, rows);
        const x = (c - 0.5 * (columns - 1)) / longer, y = (0.5 * (rows - 1) - r) / longer;
        out.set([x, y, heights[at], along / pixel_nm, -down / pixel_nm, grey[at] / 255], 6 * at);
      }
    }
    return out;
  }

  // The cut faces below the border, one strip of triangles a side, each with its outward normal.
  function walls(mesh, columns, rows) {
    const line = (count, at) => Array.from({ length: count }, (_, i) => at(i));
    const sides = [
      { normal: [0, -1, 0], path: line(columns, (c) => (rows - 1) * columns + c) },
      { normal: [0, 1, 0], path: line(columns, (c) => c) },
      { normal: [-1, 0, 0], path: line(rows, (r) => r * columns) },
      { normal: [1, 0, 0], path: line(rows, (r) => r * columns + columns - 1) },
    ];
    return sides.map(({ normal, path }) => {
      const strip = new Float32Array(12 * path.length);
      path.forEach((vertex, i) => {
        const [x, y, z] = mesh.subarray(6 * vertex, 6 * vertex + 3);
        strip.set([x, y, z, 0, 0, 0, x, y, 0, 0, 0, 1], 12 * i);
      });
      return { normal, strip };
    });
  }

  function build(data) {
    const k = data.view_block, reduce = (values) => tools.blockMean(values, data.width, data.height, k);
    const block = reduce(data.height_nm), low = tools.range(block.values)[0];
    const heights = block.values.map((v) => v - low);
    const { width, height } = block, pixel_nm = data.pixel_nm * k;
    const mesh = vertices(heights, reduce(data.grey).values, width, height, pixel_nm);
    return {
      columns: width, rows: height, heights, mesh, walls: walls(mesh, width, height), bands: bands(width, height),
      relief_nm: tools.range(heights)[1], side_nm: (Math.max(width, height, 2) - 1) * pixel_nm, pixel_nm,
    };
  }

  Object.assign(tools, { mesh: { build, bands, indices, vertices } });
})();
