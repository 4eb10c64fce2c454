// Draws dots on a canvas, because it can move forty thousand of them smoothly, unlike elements. If few dots are visible,
// they are drawn as thumbnails.
const page = window.miniclip;
const { t } = page;
const canvas = element.querySelector('canvas');
const plane = element.querySelector('.plane');
const hover = element.querySelector('.hover');
const notice = element.querySelector('.notice');
const legend = element.querySelector('.legend');
const colour = element.querySelector('[name=colour]');
const layout = element.querySelector('[name=layout]');
const HUES = ['#0d9488', '#ea580c', '#6366f1', '#db2777', '#ca8a04', '#0284c7', '#65a30d', '#9333ea', '#dc2626', '#78716c', '#94a3b8'];
const NEAR_PX = 14;
const MAX_THUMBNAILS = 120, THUMBNAIL_PX = 56;
const MAX_NAMES = { phone: 8, desktop: 20 }, PHONE_PX = 600, NAME_GAP_PX = 4;
let map = null;  // { rows, points, group, groups, clusters, gallery, preview }; clusters: { x, y, item }
let shades = null;
let order = [];  // the order of drawing: the best are last, on top
const thumbnails = new Map();  // by dot
let view = { x: 0, y: 0, zoom: 1 };
let pointed = -1;
let painting = 0;
let isStale = false;

const address = (dot) => `${map.preview}/${map.rows[dot]}.webp`;
const open = (dot) => page.send('open', { row: map.rows[dot], gallery: map.gallery });
const decode = (text, Kind) => new Kind(Uint8Array.from(atob(text), (char) => char.charCodeAt(0)).buffer);
const scale = () => 0.47 * Math.min(canvas.clientWidth, canvas.clientHeight) * view.zoom;
const stretch = () => Math.max(1, canvas.clientWidth / canvas.clientHeight);  // wide screens get a wide map
const position = (x, y) => [
    canvas.clientWidth / 2 + (x * stretch() - view.x) * scale(),
    canvas.clientHeight / 2 - (y - view.y) * scale(),
];
const place = (dot) => position(map.points[2 * dot], map.points[2 * dot + 1]);

function draw() {
    if (!map || !canvas.clientWidth) return;
    const sharp = window.devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * sharp;
    canvas.height = canvas.clientHeight * sharp;
    const context = canvas.getContext('2d');
    context.scale(sharp, sharp);
    const radius = Math.max(1.8, Math.min(8, 170 / Math.sqrt(map.rows.length) * Math.sqrt(view.zoom)));
    const dark = document.body.classList.contains('dark');
    const margin = THUMBNAIL_PX / 2;
    const visible = order.filter((dot) => {
        const [x, y] = place(dot);
        return x > -margin && y > -margin && x < canvas.clientWidth + margin && y < canvas.clientHeight + margin;
    });
    const asThumbnails = view.zoom > 1 && visible.length <= MAX_THUMBNAILS;
    canvas.dataset.thumbnails = 0;
    for (const dot of visible) {
        const [x, y] = place(dot);
        if (asThumbnails && drawThumbnail(context, dot, x, y)) continue;
        const share = shades ? shades[dot] : 1;
        context.beginPath();
        context.arc(x, y, shades ? radius * (0.8 + 0.8 * Math.max(share, 0) ** 2) : radius, 0, 7);
        context.fillStyle = shades ? shade(share, dark) : HUES[map.group[dot] % HUES.length];
        context.fill();
    }
    placeNames();
    if (pointed >= 0) {
        const [x, y] = place(pointed);
        context.beginPath();
        context.arc(x, y, radius + 4, 0, 7);
        context.lineWidth = 2.5;
        context.strokeStyle = dark ? '#fff' : '#111';
        context.stroke();
    }
}

// Draws the image of a dot; false while it is still being loaded.
function drawThumbnail(context, dot, x, y) {
    let image = thumbnails.get(dot);
    if (!image) {
        image = new Image();
        image.onload = () => requestAnimationFrame(draw);
        image.src = address(dot);
        thumbnails.set(dot, image);
    }
    if (!image.complete || !image.naturalWidth) return false;
    const scaled = THUMBNAIL_PX / Math.max(image.naturalWidth, image.naturalHeight);
    const [width, height] = [image.naturalWidth * scaled, image.naturalHeight * scaled];
    context.drawImage(image, x - width / 2, y - height / 2, width, height);
    canvas.dataset.thumbnails = Number(canvas.dataset.thumbnails) + 1;
    return true;
}

// Names of groups, the largest first: as many as fit without touching each other. Zooming in makes room for others. They are
// elements, so that a screen reader finds them.
function placeNames() {
    const most = canvas.clientWidth < PHONE_PX ? MAX_NAMES.phone : MAX_NAMES.desktop;
    const taken = [];
    for (const name of map.clusters) {
        if (!name.width) {
            name.item.hidden = false;
            [name.width, name.height] = [name.item.offsetWidth, name.item.offsetHeight];
        }
        const [x, y] = position(name.x, name.y);
        const box = { left: x - name.width / 2, top: y - name.height / 2, right: x + name.width / 2, bottom: y + name.height / 2 };
        const isInside = box.left >= 0 && box.top >= 0 && box.right <= canvas.clientWidth && box.bottom <= canvas.clientHeight;
        const touches = (other) => box.left < other.right + NAME_GAP_PX && other.left < box.right + NAME_GAP_PX
            && box.top < other.bottom + NAME_GAP_PX && other.top < box.bottom + NAME_GAP_PX;
        name.item.hidden = !isInside || taken.length >= most || taken.some(touches);
        if (name.item.hidden) continue;
        taken.push(box);
        name.item.style.transform = `translate(${Math.round(box.left)}px, ${Math.round(box.top)}px)`;
    }
}

function listNames(clusters) {
    const items = clusters.map(({ name }) => {
        const item = document.createElement('li');
        [item.textContent, item.hidden] = [name, true];  // until it has a place
        return item;
    });
    element.querySelector('.names').replaceChildren(...items);
    return clusters.map(({ x, y }, number) => ({ x, y, item: items[number] }));
}

function shade(share, dark) {
    if (share < 0) return dark ? '#33415580' : '#e2e8f080';
    const strong = share ** 1.5;
    const lightness = dark ? 34 + 26 * strong : 82 - 34 * strong;
    return `hsl(16 ${8 + 84 * strong}% ${lightness}%)`;
}

function nearest(x, y, within) {
    let [best, least] = [-1, within ** 2];
    for (let dot = 0; dot < map.rows.length; dot += 1) {
        const [px, py] = place(dot);
        const distance = (px - x) ** 2 + (py - y) ** 2;
        if (distance < least) [best, least] = [dot, distance];
    }
    return best;
}

function point(dot) {
    pointed = dot;
    canvas.dataset.row = dot < 0 ? '' : map.rows[dot];
    canvas.style.cursor = dot < 0 ? 'grab' : 'pointer';
    hover.hidden = dot < 0;
    if (dot >= 0) {
        const [x, y] = place(dot);
        hover.querySelector('img').src = address(dot);
        canvas.dataset.at = `${x.toFixed(1)} ${y.toFixed(1)}`;
        hover.style.left = `${Math.min(Math.max(x - 80, 4), canvas.clientWidth - 168)}px`;
        hover.style.top = `${y > 190 ? y - 184 : y + 18}px`;
    }
    draw();
}

function zoomBy(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
    const [dx, dy] = [(x - canvas.clientWidth / 2) / scale(), (y - canvas.clientHeight / 2) / scale()];
    const zoom = factor ? Math.min(60, Math.max(0.8, view.zoom * factor)) : 1;
    const kept = 1 - view.zoom / zoom;
    view = factor ? { x: view.x + dx * kept, y: view.y - dy * kept, zoom } : { x: 0, y: 0, zoom: 1 };
    canvas.dataset.zoom = view.zoom.toFixed(2);
    point(-1);
}

const fingers = new Map();
let moved = 0;
const spread = () => {
    const [a, b] = [...fingers.values()];
    return Math.hypot(a.x - b.x, a.y - b.y);
};
canvas.addEventListener('pointerdown', (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
    moved = 0;
});
canvas.addEventListener('pointermove', (event) => {
    if (!map) return;
    const before = fingers.get(event.pointerId);
    if (!before) {
        point(nearest(event.offsetX, event.offsetY, NEAR_PX));
        return;
    }
    const apart = fingers.size === 2 ? spread() : 0;
    const [dx, dy] = [event.offsetX - before.x, event.offsetY - before.y];
    fingers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
    moved += Math.abs(dx) + Math.abs(dy);
    if (moved < 5) return;
    if (apart) zoomBy(spread() / apart, event.offsetX, event.offsetY);
    else view = { ...view, x: view.x - dx / scale(), y: view.y + dy / scale() };
    point(-1);
});
const lift = (event) => {
    const was = fingers.delete(event.pointerId);
    if (!was || moved >= 5 || event.type !== 'pointerup' || !map) return;
    const dot = nearest(event.offsetX, event.offsetY, 2 * NEAR_PX);
    if (dot >= 0) open(dot);
};
canvas.addEventListener('pointerup', lift);
canvas.addEventListener('pointercancel', lift);
canvas.addEventListener('pointerleave', () => { if (map && !fingers.size) point(-1); });
canvas.addEventListener('wheel', (event) => {
    event.preventDefault();
    if (map) zoomBy(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
}, { passive: false });
canvas.addEventListener('keydown', (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!map) return;
    if (step) view = { ...view, x: view.x + 0.15 * step[0] / view.zoom, y: view.y + 0.15 * step[1] / view.zoom };
    else if (event.key === '+' || event.key === '=') zoomBy(1.4);
    else if (event.key === '-') zoomBy(1 / 1.4);
    else if (event.key === 'Enter' && pointed >= 0) open(pointed);
    else return;
    event.preventDefault();
    point(nearest(canvas.clientWidth / 2, canvas.clientHeight / 2, Infinity));
});
element.querySelector('.zoom').addEventListener('click', (event) => {
    const button = event.target.closest('[data-zoom]');
    if (button && map) zoomBy(Number(button.dataset.zoom));
});

async function load() {
    const asked = layout.value;
    notice.textContent = asked === 'umap' ? t('computing_map') : '';
    const answer = await page.call(server.points, { layout: asked });
    if (asked !== layout.value) return;
    notice.textContent = answer.message ?? '';
    if (answer.message) return;
    thumbnails.clear();
    map = {
        ...answer, rows: decode(answer.rows, Int32Array), points: decode(answer.points, Float32Array),
        group: decode(answer.group, Uint8Array), clusters: listNames(answer.clusters),
    };
    element.querySelector('.layout').hidden = !answer.has_umap;
    colour.querySelector('[value=folder]').disabled = !map.groups.length;
    await paint();
    canvas.dataset.layout = layout.value;
}

async function paint() {
    if (!map) return;
    isStale = canvas.offsetParent === null;  // a hidden map is painted when it is shown again
    if (isStale) return;
    const mine = ++painting;
    shades = null;
    legend.replaceChildren();
    let refusal = {};
    if (colour.value === 'question') {
        const answer = await page.call(server.shades, { ...page.question, gallery: map.gallery });
        if (mine !== painting) return;  // another colour was chosen in the meantime
        if (answer.message) refusal = answer;
        shades = answer.shades ? decode(answer.shades, Float32Array) : null;
        if (page.question.q && shades) legend.textContent = t('redder_dots', { words: page.question.q });
    } else {
        legend.append(...map.groups.map((name, number) => {
            const one = document.createElement('span');
            const dot = document.createElement('i');
            dot.style.background = HUES[number % HUES.length];
            one.append(dot, name);
            return one;
        }));
    }
    order = [...map.rows.keys()];
    if (shades) order.sort((a, b) => shades[a] - shades[b]);
    const left = map.all - map.rows.length;
    if (refusal.gallery_changed) notice.innerHTML = page.message(refusal);
    else notice.textContent = refusal.message ?? (left > 0 ? t('images_shown', { shown: map.rows.length, total: map.all }) : '');
    canvas.dataset.dots = map.rows.length;
    canvas.dataset.painted = colour.value;
    draw();
}

colour.addEventListener('change', paint);
layout.addEventListener('change', load);
page.hear('gallery', load);
page.hear('asked', () => { if (colour.value === 'question') paint(); });
new ResizeObserver(() => (isStale ? paint() : draw())).observe(plane);
load();
