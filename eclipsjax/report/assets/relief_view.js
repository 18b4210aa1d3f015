// The 3D view's drawing: WebGL 1, turned by rotations only, so that nothing is ever mirrored.
"use strict";

(() => {
  const tools = window.eclipsjax;

  const VERTEX = `
    attribute vec3 place; attribute vec2 slope; attribute float grey;
    uniform mat3 turn; uniform vec3 shift; uniform vec4 lens; uniform float lift, steep, middle, drop, top; uniform vec3 face;
    varying vec3 normal; varying float share, shade, cut;
    void main() {
      bool wall = dot(face, face) > 0.5;
      vec3 p = vec3(place.xy, (place.z - middle) * lift);
      if (wall) p.z -= grey * drop;
      p = turn * p + shift;
      gl_Position = vec4(lens.xy * p.xy, lens.z * p.z + lens.w, -p.z);
      normal = turn * (wall ? face : vec3(-steep * slope, 1.0));
      share = place.z / top;
      shade = grey;
      cut = wall ? 1.0 : 0.0;
    }`;
  // Light from the upper left of the screen, and a little of the beholder's own.
  const FRAGMENT = `
    precision mediump float;
    varying vec3 normal; varying float share, shade, cut;
    uniform sampler2D colours; uniform float byGrey;
    void main() {
      vec3 n = normalize(normal);
      bool wall = cut > 0.5;
      if (!gl_FrontFacing && !wall) { gl_FragColor = vec4(0.45, 0.47, 0.5, 1.0); return; }
      float light = 0.25 + 0.7 * max(dot(n, vec3(-0.485, 0.485, 0.728)), 0.0) + 0.15 * max(n.z, 0.0);
      vec3 base = byGrey > 0.5 ? vec3(shade) : texture2D(colours, vec2(0.002 + 0.996 * share, 0.5)).rgb;
      if (wall) base = vec3(0.62, 0.65, 0.69);
      gl_FragColor = vec4(min(base * light * 1.15, 1.0), 1.0);
    }`;
  const UNIFORMS = ["turn", "shift", "lens", "lift", "steep", "middle", "drop", "top", "face", "colours", "byGrey"];
  const HALF_ANGLE = (14 * Math.PI) / 180, FIELD = 1 / Math.tan(HALF_ANGLE);

  function compiled(gl, type, source) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    return shader;
  }

  function program(gl) {
    const linked = gl.createProgram();
    gl.attachShader(linked, compiled(gl, gl.VERTEX_SHADER, VERTEX));
    gl.attachShader(linked, compiled(gl, gl.FRAGMENT_SHADER, FRAGMENT));
    ["place", "slope", "grey"].forEach((name, k) => gl.bindAttribLocation(linked, k, name));
    gl.linkProgram(linked);
    if (!gl.getProgramParameter(linked, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(linked));
    gl.useProgram(linked);
    return Object.fromEntries(UNIFORMS.map((name) => [name, gl.getUniformLocation(linked, name)]));
  }

  function buffer(gl, kind, values) {
    const made = gl.createBuffer();
    gl.bindBuffer(kind, made);
    gl.bufferData(kind, values, gl.STATIC_DRAW);
    return made;
  }

  function colourTexture(gl, colours) {
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, 256, 1, 0, gl.RGB, gl.UNSIGNED_BYTE, colours);
    for (const [name, value] of [["WRAP_S", "CLAMP_TO_EDGE"], ["WRAP_T", "CLAMP_TO_EDGE"],
                                 ["MIN_FILTER", "LINEAR"], ["MAG_FILTER", "LINEAR"]]) {
      gl.texParameteri(gl.TEXTURE_2D, gl["TEXTURE_" + name], gl[value]);
    }
  }

  // Rows of the rotation: first about z by `yaw`, then tipped back by `tip`; at (0, 0) one looks straight down.
  function rotation(yaw, tip) {
    const [a, b, c, d] = [Math.cos(yaw), Math.sin(yaw), Math.cos(tip), Math.sin(tip)];
    return [[a, -b, 0], [c * b, c * a, d], [-d * b, -d * a, c]];
  }

  // Pose: yaw, tip (radians), distance, pan [x, y], factor (exaggeration). Place: x, y, z as in the mesh.
  function camera(shape, pose, aspect) {
    const turn = rotation(pose.yaw, pose.tip), lift = pose.factor / shape.side_nm;
    const shift = [pose.pan[0], pose.pan[1], -pose.distance], wide = Math.min(1, aspect);
    const [near, far] = [0.02 * pose.distance, pose.distance + 4];
    const lens = [(FIELD * wide) / aspect, FIELD * wide, -(far + near) / (far - near), (-2 * far * near) / (far - near)];
    const project = (place) => {
      const p = [place[0], place[1], (place[2] - 0.5 * shape.relief_nm) * lift];
      const [x, y, z] = turn.map((row, k) => row[0] * p[0] + row[1] * p[1] + row[2] * p[2] + shift[k]);
      return [(lens[0] * x) / -z, (lens[1] * y) / -z];
    };
    return { turn, lift, shift, lens, project };
  }

  function scene(canvas, shape, colours) {
    const options = { antialias: true, preserveDrawingBuffer: true, alpha: false };
    const gl = canvas.getContext("webgl", options) || canvas.getContext("experimental-webgl", options);
    if (!gl) return null;
    const at = program(gl), mesh = buffer(gl, gl.ARRAY_BUFFER, shape.mesh);
    const walls = shape.walls.map((w) => ({ ...w, made: buffer(gl, gl.ARRAY_BUFFER, w.strip) }));
    const deepest = shape.bands.length ? shape.bands[0].rows : 1;
    buffer(gl, gl.ELEMENT_ARRAY_BUFFER, tools.mesh.indices(shape.columns, deepest));
    colourTexture(gl, colours);
    gl.enable(gl.DEPTH_TEST);
    gl.clearColor(0.957, 0.961, 0.969, 1);
    [0, 1, 2].forEach((k) => gl.enableVertexAttribArray(k));

    function attributes(made, first) {
      gl.bindBuffer(gl.ARRAY_BUFFER, made);
      [[3, 0], [2, 12], [1, 20]].forEach(([size, offset], k) => {
        gl.vertexAttribPointer(k, size, gl.FLOAT, false, 24, offset + 24 * first);
      });
    }

    return (pose) => {
      const seen = camera(shape, pose, canvas.width / canvas.height);
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      gl.uniformMatrix3fv(at.turn, false, [0, 1, 2].flatMap((c) => seen.turn.map((row) => row[c])));
      gl.uniform3fv(at.shift, seen.shift);
      gl.uniform4fv(at.lens, seen.lens);
      gl.uniform1f(at.lift, seen.lift);
      gl.uniform1f(at.steep, pose.factor);
      gl.uniform1f(at.middle, 0.5 * shape.relief_nm);
      gl.uniform1f(at.drop, 0.04);
      gl.uniform1f(at.top, shape.relief_nm || 1);
      gl.uniform1f(at.byGrey, pose.byGrey ? 1 : 0);
      gl.uniform3f(at.face, 0, 0, 0);
      for (const band of shape.bands) {
        attributes(mesh, band.first * shape.columns);
        gl.drawElements(gl.TRIANGLES, 6 * (shape.columns - 1) * (band.rows - 1), gl.UNSIGNED_SHORT, 0);
      }
      for (const wall of walls) {
        gl.uniform3fv(at.face, wall.normal);
        attributes(wall.made, 0);
        gl.drawArrays(gl.TRIANGLE_STRIP, 0, wall.strip.length / 6);
      }
    };
  }

  Object.assign(tools, { view: { camera, rotation, scene, HALF_ANGLE } });
})();
