// An image: the input, its heatmap, and the heatmap over the input; outline, crosshair, read-out.

const SIDE = 448; // canvases that show the input have at least so many pixels a side

/** Segments of the line along which a map of 0 to 1 crosses one half (marching squares), in units of its cells. */
function contour(mask) {
  const [rows, columns] = mask.shape, found = [];
  const value = (r, c) => (r < 0 || c < 0 || r >= rows || c >= columns ? 0 : mask.values[r * columns + c]) - 0.499;
  for (let r = -1; r < rows; r++) {
    for (let c = -1; c < columns; c++) { // the corners are the centres of four cells
      const corners = [[r, c], [r, c + 1], [r + 1, c + 1], [r + 1, c]].map(([y, x]) => [x + 0.5, y + 0.5, value(y, x)]);
      const crossings = [];
      corners.forEach(([x0, y0, v0], i) => {
        const [x1, y1, v1] = corners[(i + 1) % 4];
        if (v0 > 0 === v1 > 0) return;
        const part = v0 / (v0 - v1);
        crossings.push([x0 + (x1 - x0) * part, y0 + (y1 - y0) * part]);
      });
      for (let i = 0; i + 1 < crossings.length; i += 2) found.push([crossings[i], crossings[i + 1]]);
    }
  }
  return found;
}

/** Returns {node, show(explanation, settings)}. */
function pictureView(input, index) {
  const names = ['What the network saw', 'What mattered (the heatmap)', 'Both, one over the other'];
  const figures = names.map((name, i) => {
    const canvas = h('canvas', { tabindex: '0', role: 'img', class: ['input', 'heatmap', 'overlay'][i] });
    const cross = h('span', { class: 'cross', hidden: true });
    return { name, canvas, cross, node: h('figure', {}, h('div', { class: 'frame' }, canvas, cross), h('figcaption', {}, name)) };
  });
  const heat = document.createElement('canvas');
  const readout = h('p', { class: 'readout', 'aria-live': 'polite' });
  const idle = 'Point at a picture, or use the arrow keys on it, to read single pixels.';
  const bar = h('div');
  const node = h('div', { class: 'picture' }, h('div', { class: 'figures' }, figures.map((f) => f.node)), bar, readout);
  const image = new Image();
  const ready = image.decode ? (image.src = input.image, image.decode()) : Promise.resolve();
  let map, reached, grey, at = null;

  function size() {
    const [height, width] = map.shape;
    const side = Math.max(SIDE, image.naturalWidth, image.naturalHeight);
    const times = Math.max(1, Math.round(side / Math.max(width, height)));
    return [width * times, height * times, times];
  }

  function drawInput(canvas, toGrey) {
    const [width, height] = size();
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext('2d', { willReadFrequently: true });
    context.imageSmoothingEnabled = image.naturalWidth > 96;
    context.drawImage(image, 0, 0, width, height);
    if (!toGrey) return context;
    if (!grey || grey.width !== width || grey.height !== height) {
      grey = context.getImageData(0, 0, width, height);
      for (let i = 0; i < grey.data.length; i += 4) {
        const light = 0.3 * grey.data[i] + 0.59 * grey.data[i + 1] + 0.11 * grey.data[i + 2];
        grey.data.fill(60 + 0.7 * light, i, i + 3);
      }
    }
    context.putImageData(grey, 0, 0);
    return context;
  }

  /** The border of the part that holds half of the positive relevance: light, with a dark core. */
  function drawOutline(context, mask) {
    const [rows, columns] = mask.shape;
    const dx = context.canvas.width / columns, dy = context.canvas.height / rows;
    context.beginPath();
    for (const [[x0, y0], [x1, y1]] of contour(mask)) {
      context.moveTo(x0 * dx, y0 * dy);
      context.lineTo(x1 * dx, y1 * dy);
    }
    context.lineCap = 'round';
    for (const [width, colour] of [[6, 'rgb(255 255 255 / .9)'], [2.5, '#c2362f']]) {
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.stroke();
    }
  }

  function read() {
    for (const f of figures) f.cross.hidden = !at;
    if (!at) {
      readout.textContent = idle;
      return;
    }
    const [height, width] = map.shape;
    const [row, column] = at;
    const value = map.values[row * width + column];
    for (const f of figures) {
      f.cross.style.left = `${(column + 0.5) / width * 100}%`;
      f.cross.style.top = `${(row + 0.5) / height * 100}%`;
    }
    const what = input.block > 1 ? `Pixels from row ${row * input.block}, column ${column * input.block} (${input.block} × ${input.block})`
      : `Pixel in row ${row}, column ${column}`;
    const side = value > 0 ? 'evidence for it' : value < 0 ? 'evidence against it' : 'no evidence';
    const share = reached ? `, ${percent(Math.abs(value / reached))} of what reached the picture` : '';
    readout.textContent = `${what}: ${signed(value)}, ${side}${share}.`;
  }

  function move(event) {
    const box = event.currentTarget.getBoundingClientRect();
    const [height, width] = map.shape;
    const place = (v, size, n) => Math.max(0, Math.min(n - 1, Math.floor(v / size * n)));
    at = [place(event.clientY - box.top, box.height, height), place(event.clientX - box.left, box.width, width)];
    read();
  }

  function key(event) {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (event.key === 'Escape') at = null;
    else if (!step) return;
    else {
      const far = event.shiftKey ? 10 : 1;
      at = (at || map.shape.map((n) => n >> 1)).map((v, i) => Math.max(0, Math.min(map.shape[i] - 1, v + far * step[i])));
    }
    event.preventDefault();
    read();
  }

  for (const f of figures) {
    f.canvas.addEventListener('pointermove', move);
    f.canvas.addEventListener('pointerdown', move);
    f.canvas.addEventListener('pointerleave', () => { at = null; read(); });
    f.canvas.addEventListener('keydown', key);
  }

  return {
    node,
    async show(explanation, settings) {
      await ready;
      const packed = explanation.maps[index];
      if (!packed.unpacked) {
        packed.unpacked = unpack(packed);
        packed.sorted = magnitudes(packed.unpacked.values);
        packed.mask = packed.focus && packed.focus.share <= 0.4 ? unpack(packed.focus.mask) : null;
      }
      map = packed.unpacked;
      reached = explanation.reached;
      const limit = limitOf(packed.sorted, settings.clip);
      const outline = settings.outline && packed.mask;
      const [first, second, third] = figures.map((f) => f.canvas);
      const inputContext = drawInput(first, false);
      paint(second, map, limit);
      paint(heat, map, limit, settings.blend / 100);
      const context = drawInput(third, true);
      context.imageSmoothingEnabled = map.shape[0] > 96;
      context.drawImage(heat, 0, 0, third.width, third.height);
      if (outline) {
        drawOutline(inputContext, packed.mask);
        drawOutline(context, packed.mask);
      }
      second.classList.toggle('coarse', Math.max(...map.shape) <= 96);
      first.setAttribute('aria-label', `Input ${input.name}${outline ? '; the outline holds half of the evidence' : ''}.`);
      second.setAttribute('aria-label', `Heatmap. ${explanation.where[index].join('')}`);
      third.setAttribute('aria-label', `Heatmap over the input. ${explanation.where[index].join('')}`);
      bar.replaceChildren(colourBar(limit));
      read();
    },
  };
}
