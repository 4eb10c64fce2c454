// Show one image on the whole screen: the original file on this machine, the large preview on others.
// In: the event 'view' with { card } or { row, gallery, title }. Wheel, pinch, double click and keys zoom; dragging pans;
// arrow keys and swipes go to the next or the previous card. A video plays from the moment that was found.
const page = window.miniclip;
const { t } = page;
const dialog = element.querySelector('dialog');
const stage = dialog.querySelector('.stage');
const plane = dialog.querySelector('.plane');
const image = plane.querySelector('img');
const video = dialog.querySelector('video');
const info = dialog.querySelector('aside');
const notice = dialog.querySelector('.notice');
const tool = (name) => dialog.querySelector(`[data-tool=${name}]`);
const MAX_SCALE = 16;  // relative to the size that fits the screen
const STEP = 1.3;
const DOUBLE = 2.5;
const SWIPE_PX = 60;
const PAN_PX = 80;
let opened = null;  // { card, row, gallery, title, siblings, first }
let details = {};
let view = { scale: 1, x: 0, y: 0 };  // x and y in CSS pixels from the centre

// zoom and pan

function place({ scale, x, y }) {
    if (plane.hidden) return;  // a video plays
    scale = Math.min(MAX_SCALE, Math.max(1, scale));
    const box = plane.getBoundingClientRect();
    const most = (size, outer) => Math.max(0, (size * scale - outer) / 2);  // an edge never moves inside the screen's edge
    const fitted = Math.min(box.width / (image.naturalWidth || 1), box.height / (image.naturalHeight || 1));
    const within = (value, limit) => Math.min(limit, Math.max(-limit, value));
    view = {
        scale,
        x: within(x, most(image.naturalWidth * fitted, box.width)),
        y: within(y, most(image.naturalHeight * fitted, box.height)),
    };
    image.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
    plane.classList.toggle('zoomed', view.scale > 1);
    tool('fit').textContent = view.scale > 1 ? `${Math.round(100 * view.scale)} %` : t('fit');
    tool('smaller').disabled = view.scale === 1;
    tool('larger').disabled = view.scale === MAX_SCALE;
}

// Zoom around `at`: the point of the image at (clientX, clientY) stays there.
function zoom(scale, at) {
    const box = plane.getBoundingClientRect();
    const x = (at?.clientX ?? box.left + box.width / 2) - box.left - box.width / 2;
    const y = (at?.clientY ?? box.top + box.height / 2) - box.top - box.height / 2;
    const ratio = Math.min(MAX_SCALE, Math.max(1, scale)) / view.scale;
    place({ scale, x: x - (x - view.x) * ratio, y: y - (y - view.y) * ratio });
}

const fit = () => place({ scale: 1, x: 0, y: 0 });
const pan = (x, y) => place({ ...view, x: view.x + x, y: view.y + y });

// pointers: one pointer drags or swipes, two pointers pinch

const pointers = new Map();
let start = null;  // where a single pointer went down
let pinch = null;

const middle = ([a, b]) => ({ clientX: (a.clientX + b.clientX) / 2, clientY: (a.clientY + b.clientY) / 2 });
const distance = ([a, b]) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);

plane.addEventListener('pointerdown', (event) => {
    if (event.button) return;
    plane.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, event);
    const two = [...pointers.values()];
    if (two.length === 2) [pinch, start] = [{ distance: distance(two), scale: view.scale, at: middle(two) }, null];
    else start = { x: event.clientX, y: event.clientY, type: event.pointerType };
});
plane.addEventListener('pointermove', (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    pointers.set(event.pointerId, event);
    const two = [...pointers.values()];
    if (pinch && two.length === 2) {
        const at = middle(two);
        pan(at.clientX - pinch.at.clientX, at.clientY - pinch.at.clientY);
        pinch.at = at;
        zoom(pinch.scale * distance(two) / pinch.distance, at);
    } else if (view.scale > 1) pan(event.clientX - before.clientX, event.clientY - before.clientY);
});
function lift(event) {
    if (!pointers.delete(event.pointerId)) return;
    const [x, y] = start ? [event.clientX - start.x, event.clientY - start.y] : [0, 0];
    const isSwipe = start && !pinch && view.scale === 1 && start.type !== 'mouse' && event.type === 'pointerup';
    if (isSwipe && Math.abs(x) > SWIPE_PX && Math.abs(x) > 2 * Math.abs(y)) turn(x < 0 ? 1 : -1);
    else if (isSwipe && y > SWIPE_PX && y > 2 * Math.abs(x)) dialog.close();
    start = null;
    if (!pointers.size) pinch = null;
}
plane.addEventListener('pointerup', lift);
plane.addEventListener('pointercancel', lift);
plane.addEventListener('wheel', (event) => {
    event.preventDefault();
    zoom(view.scale * Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.002)), event);  // browsers send a touchpad's pinch as wheel with Ctrl
}, { passive: false });
plane.addEventListener('dblclick', (event) => (view.scale > 1 ? fit() : zoom(DOUBLE, event)));
addEventListener('resize', () => { if (dialog.open) place(view); });

// choosing the image

const cardsAround = (card) => (card?.isConnected ? page.cardsAround(card) : []);
const neighbour = (step) => {
    const at = opened.siblings.indexOf(opened.card);
    return at < 0 ? undefined : opened.siblings[at + step];
};

function turn(step) {
    const card = neighbour(step);
    if (card) show({ card, first: opened.first });
}

// Put the video in the place of its frame. If the browser cannot play it, the frame stays.
async function play(mine) {
    const address = await page.localAddress(`original/${mine.gallery}/${mine.row}`);
    if (mine !== opened) return;
    video.src = `${address}#t=${mine.second}`;
    video.setAttribute('aria-label', mine.title);
    video.onloadeddata = () => {
        showVideo(true);
        if (mine.plays) video.play().catch(() => {});  // the browser may not allow it: its controls are there
    };
    video.onerror = () => { if (mine === opened) notice.textContent = t('video_unplayable'); };
}

function showVideo(on) {
    const hasFocus = [plane, video].includes(document.activeElement);
    [video.hidden, plane.hidden] = [!on, on];
    for (const name of ['smaller', 'fit', 'larger']) tool(name).hidden = on;
    if (hasFocus) (on ? video : plane).focus({ preventScroll: true });
}

function stop() {
    [video.onloadeddata, video.onerror] = [null, null];
    showVideo(false);
    if (!video.hasAttribute('src')) return;
    video.removeAttribute('src');
    video.load();  // ends the download
}

async function show({ card, row, gallery, title, first, second }) {
    const values = card ? card.dataset : { row, gallery, second };
    const siblings = cardsAround(card);
    const mine = opened = { card, row: Number(values.row), gallery: values.gallery, siblings, first: first ?? card };
    mine.title = card?.title ?? title ?? '';
    mine.second = values.second;
    mine.plays = second != null;  // opened by "Play", not by turning to it
    stop();
    const preview = `preview/${mine.gallery}/large/${mine.row}.webp`;
    dialog.querySelector('h2').textContent = mine.title;
    dialog.querySelector('.place').textContent = card ? t('place_of', { place: siblings.indexOf(card) + 1, total: siblings.length }) : '';
    for (const [name, step] of [['previous', -1], ['next', 1]]) tool(name).hidden = !neighbour(step);
    notice.textContent = '';
    details = {};
    image.alt = mine.title;
    image.src = new URL(preview, document.baseURI).href;
    if (!dialog.open) {
        dialog.showModal();
        plane.focus({ preventScroll: true });
    } else if (document.activeElement?.hidden) plane.focus();
    fit();
    const access = await page.openLocal();
    for (const name of ['info', 'path']) tool(name).hidden = !access;
    tool('show').hidden = !access?.canShow;
    if (!access) return;
    if (!info.hidden) describe();
    if (mine.second != null) {
        await play(mine);
        return;
    }
    const original = new Image();  // if the browser cannot draw it, as with HEIC, the preview stays
    original.src = await page.localAddress(`original/${mine.gallery}/${mine.row}`);
    await original.decode().catch(() => {});
    if (mine === opened && original.naturalWidth) {
        image.src = original.src;
        image.dataset.original = mine.row;
        await image.decode().catch(() => {});
        if (mine === opened) place(view);
    }
}
image.addEventListener('load', () => place(view));

// the toolbar

async function about() {
    const mine = opened;
    if (details.row !== mine.row) {
        const found = await page.local('details', { row: mine.row, gallery: mine.gallery });
        if (mine === opened) details = { row: mine.row, ...found };
        return found;
    }
    return details;
}

async function describe() {
    const mine = opened;
    const { facts = [], message } = await about();
    if (mine !== opened) return;
    const list = info.querySelector('dl');
    list.replaceChildren(...facts.flatMap(([name, value]) => ['dt', 'dd'].map((kind, place) => {
        const item = document.createElement(kind);
        item.textContent = [name, value][place];
        return item;
    })));
    if (message) notice.textContent = message;
}

const tools = {
    smaller: () => zoom(view.scale / STEP),
    larger: () => zoom(view.scale * STEP),
    fit,
    previous: () => turn(-1),
    next: () => turn(1),
    close: () => dialog.close(),
    full: () => (document.fullscreenElement ? document.exitFullscreen() : stage.requestFullscreen?.()),
    info: () => {
        info.hidden = !info.hidden;
        tool('info').setAttribute('aria-expanded', String(!info.hidden));
        if (!info.hidden) describe();
    },
    save: async () => {
        const original = await page.localAddress(`original/${opened.gallery}/${opened.row}?save`);
        page.download(original || image.src, original ? '' : `image-${opened.row}.webp`);
    },
    path: async () => {
        const { path, message } = await about();
        try {
            if (path) await navigator.clipboard.writeText(path);
            notice.textContent = message ?? t('path_copied');
        } catch {  // the browser denies access to the clipboard
            notice.textContent = path;
        }
    },
    show: async () => {
        const said = await page.local('show', { row: opened.row, gallery: opened.gallery });
        notice.textContent = said.notice ?? said.message;
    },
};
dialog.addEventListener('click', (event) => {
    const button = event.target.closest('[data-tool]');
    if (button) tools[button.dataset.tool]();
});

const isZoomed = () => view.scale > 1;
const keys = {
    ArrowRight: () => (isZoomed() ? pan(-PAN_PX, 0) : turn(1)),
    ArrowLeft: () => (isZoomed() ? pan(PAN_PX, 0) : turn(-1)),
    ArrowUp: () => pan(0, PAN_PX),
    ArrowDown: () => pan(0, -PAN_PX),
    PageDown: () => turn(1),
    PageUp: () => turn(-1),
    '+': tools.larger, '=': tools.larger, '-': tools.smaller, 0: fit, 1: () => zoom(DOUBLE),
    f: tools.full, d: tools.save, i: () => { if (!tool('info').hidden) tools.info(); },
};
dialog.addEventListener('keydown', (event) => {
    const act = keys[event.key];
    if (event.target === video && event.key.startsWith('Arrow')) return;  // the player's own keys
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
});
document.addEventListener('fullscreenchange', () => {
    tool('full').setAttribute('aria-pressed', String(document.fullscreenElement === stage));
    if (dialog.open) place(view);
});
dialog.addEventListener('close', () => {
    if (document.fullscreenElement) document.exitFullscreen();
    pointers.clear();
    stop();
    image.removeAttribute('src');
    const { card, first } = opened;
    opened = null;
    if (card === first || !card?.isConnected) return;
    if (document.querySelector('#detail-dialog[open]')) page.send('open', { card });  // the image that was shown last
    else card.focus();
});
page.hear('view', show);
