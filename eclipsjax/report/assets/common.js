// What the page's interactive parts share. Rows run down the image, columns to the right, as in the arrays.
"use strict";

window.eclipsjax = (() => {
  function bytes(base64) {
    const text = atob(base64);
    const out = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) out[i] = text.charCodeAt(i);
    return out;
  }

  // Little-endian float32, as NumPy wrote them.
  function floats(base64) {
    const raw = bytes(base64);
    const view = new DataView(raw.buffer);
    const out = new Float32Array(raw.length / 4);
    for (let i = 0; i < out.length; i++) out[i] = view.getFloat32(4 * i, true);
    return out;
  }

  // {width, height, pixel_nm, height_nm, std_nm, truth_nm, grey, ...}; maps that were not given are null.
  function read(id) {
    const data = JSON.parse(document.getElementById(id).textContent);
    for (const name of ["height_nm", "std_nm", "truth_nm"]) data[name] = data[name] ? floats(data[name]) : null;
    for (const name of ["grey", "colours"]) data[name] = bytes(data[name]);
    return data;
  }

  // Means of blocks of k x k; rows and columns that fill no whole block are left out.
  function blockMean(values, width, height, k) {
    const columns = Math.floor(width / k), rows = Math.floor(height / k);
    const out = new Float32Array(columns * rows);
    for (let r = 0; r < rows * k; r++) {
      const target = Math.floor(r / k) * columns, source = r * width;
      for (let c = 0; c < columns * k; c++) out[target + Math.floor(c / k)] += values[source + c] / (k * k);
    }
    return { values: out, width: columns, height: rows };
  }

  // Value between four pixels; x in columns, y in rows, pixel centres at whole numbers.
  function bilinear(values, width, height, x, y) {
    const x0 = Math.max(0, Math.min(Math.floor(x), width - 2)), y0 = Math.max(0, Math.min(Math.floor(y), height - 2));
    const x1 = Math.min(x0 + 1, width - 1), y1 = Math.min(y0 + 1, height - 1);
    const fx = x - x0, fy = y - y0;
    const top = (1 - fx) * values[y0 * width + x0] + fx * values[y0 * width + x1];
    const bottom = (1 - fx) * values[y1 * width + x0] + fx * values[y1 * width + x1];
    return (1 - fy) * top + fy * bottom;
  }

  function range(values) {
    let low = Infinity, high = -Infinity;
    for (const v of values) {
      if (v < low) low = v;
      if (v > high) high = v;
    }
    return low <= high ? [low, high] : [0, 0];
  }

  // Round numbers that cover [low, high], about `count` of them.
  function ticks(low, high, count) {
    const rough = (high - low) / Math.max(count, 1);
    if (!(rough > 0)) return [low];
    const power = Math.pow(10, Math.floor(Math.log10(rough)));
    const step = power * [1, 2, 5, 10].find((m) => m * power >= rough * 0.999);
    const out = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) out.push(k * step);
    return out;
  }

  function digits(value, count) {
    return Number.isFinite(value) ? String(Number(value.toPrecision(count))).replace("-", "\u2212") : "not known";
  }

  // A value with as many decimals as the two digits of its standard deviation, where that is known.
  function withStd(value, std) {
    if (!(std > 0) || !Number.isFinite(std)) return digits(value, 4);
    const decimals = Math.max(0, Math.min(6, 1 - Math.floor(Math.log10(std))));
    return `${value.toFixed(decimals)} \u00b1 ${std.toFixed(decimals)}`.replace("-", "\u2212");
  }

  function lengthText(nm) {
    for (const [unit, size] of [["mm", 1e6], ["\u00b5m", 1e3]]) {
      if (Math.abs(nm) >= size) return digits(nm / size, 3) + " " + unit;
    }
    return digits(nm, 3) + " nm";
  }

  // Sets a canvas's pixels to its size on the screen; returns how many of them lie under one CSS pixel.
  function fit(canvas) {
    const scale = Math.min(window.devicePixelRatio || 1, 2);
    const width = Math.max(1, Math.round(canvas.clientWidth * scale));
    const height = Math.max(1, Math.round(canvas.clientHeight * scale));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    return scale;
  }

  // Calls `draw` once before the next picture, however often it is asked.
  function onceAFrame(draw) {
    let asked = false;
    return () => {
      if (asked) return;
      asked = true;
      requestAnimationFrame(() => {
        asked = false;
        draw();
      });
    };
  }

  function onResize(element, call) {
    if (window.ResizeObserver) new ResizeObserver(call).observe(element);
    else window.addEventListener("resize", call);
  }

  return {
    bytes, floats, read, blockMean, bilinear, range, ticks, digits, withStd, lengthText, fit, onceAFrame, onResize,
  };
})();
