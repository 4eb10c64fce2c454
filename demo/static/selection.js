// Select images among the results, then copy, move or delete them. Only on this machine: see demo/file_actions.py.
// The selection survives a new search, because it stores rows, not cards. The dialog asks for a folder, shows the plan,
// then the outcome.
const page = window.miniclip;
const { t } = page;
const bar = element.querySelector('.bar');
const dialog = element.querySelector('dialog');
const form = dialog.querySelector('form');
const said = dialog.querySelector('.said');
const step = (name) => dialog.querySelector(`[data-step=${name}]`);
const next = form.querySelector('.primary');
const RECENT = 'miniclip-folders';
const MAX_RECENT = 5;
const LONG_PRESS_MS = 500;
const MAX_TREMBLE_PX = 10;
const selected = new Map();  // row -> gallery
let isSelecting = false;
let anchor = null;  // the row from which Shift selects
let isAllowed = false;

const rowOf = (card) => Number(card.dataset.row);
const results = () => document.getElementById('results');
const cards = () => [...results()?.querySelectorAll('button.card') ?? []];
const values = () => ({ gallery: [...selected.values()][0], rows: [...selected.keys()] });

function paint() {
    results()?.classList.toggle('selecting', isSelecting);
    for (const card of cards()) {
        if (isSelecting) card.setAttribute('aria-pressed', String(selected.has(rowOf(card))));
        else card.removeAttribute('aria-pressed');
    }
    if (isAllowed) page.resultButton('select-toggle', t('select'))?.setAttribute('aria-pressed', String(isSelecting));
    bar.hidden = !isSelecting;
    bar.querySelector('.note').textContent = '';
    bar.querySelector('.count').textContent = page.number(selected.size);
    for (const name of ['download', 'copy', 'move', 'trash']) bar.querySelector(`[data-do=${name}]`).disabled = !selected.size;
}

function end() {
    selected.clear();
    [isSelecting, anchor] = [false, null];
    paint();
}

function pick(card, on = !selected.has(rowOf(card))) {
    const row = rowOf(card);
    if (on) selected.set(row, card.dataset.gallery);
    else selected.delete(row);
}

// With Shift, all cards from the anchor to this one get the anchor's state.
function choose(card, withShift) {
    isSelecting = true;
    const all = cards();
    const [from, to] = [all.findIndex((one) => rowOf(one) === anchor), all.indexOf(card)];
    if (withShift && from >= 0) {
        const on = selected.has(anchor);
        for (const one of all.slice(Math.min(from, to), Math.max(from, to) + 1)) pick(one, on);
    } else {
        pick(card);
        anchor = rowOf(card);
    }
    paint();
}

const cardOf = (event) => (isAllowed ? event.target.closest?.('#results button.card') : null);

// Catch the click before page.js opens the card.
document.addEventListener('click', (event) => {
    const card = cardOf(event);
    if (!card || !(isSelecting || event.ctrlKey || event.metaKey || event.shiftKey)) return;
    event.stopPropagation();
    if (isPressed) return;  // this click ends the long press that began the selection
    choose(card, event.shiftKey);
}, true);
document.addEventListener('click', (event) => {
    if (!event.target.closest('.select-toggle')) return;
    if (isSelecting) end();
    else {
        isSelecting = true;
        paint();
    }
});
document.addEventListener('keydown', (event) => {
    const card = cardOf(event);
    if (card && event.key === 'x' && !event.ctrlKey && !event.metaKey) choose(card, false);
    if (!isSelecting || document.querySelector('dialog[open]')) return;
    if (event.key === 'Escape') end();
    if (card && event.key === 'a' && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        all();
    }
});

// A long press begins a selection, as on phones.
let press;
let touched;
let isPressed = false;
document.addEventListener('pointerdown', (event) => {
    const card = cardOf(event);
    isPressed = false;
    if (!card || event.pointerType === 'mouse' || isSelecting) return;
    touched = event;
    press = setTimeout(() => {
        isPressed = true;
        choose(card, false);
    }, LONG_PRESS_MS);
});
for (const name of ['pointerup', 'pointercancel', 'scroll']) {
    document.addEventListener(name, () => clearTimeout(press), { capture: true, passive: true });
}
document.addEventListener('pointermove', (event) => {  // ignore small movements during a long press
    if (touched && Math.hypot(event.clientX - touched.clientX, event.clientY - touched.clientY) > MAX_TREMBLE_PX) clearTimeout(press);
}, { passive: true });
document.addEventListener('contextmenu', (event) => { if (isPressed && cardOf(event)) event.preventDefault(); });

function all() {
    for (const card of cards()) pick(card, true);
    paint();
}

// The dialog: the request stays the same from the plan to its execution.

const ACTIONS = ['copy', 'move', 'trash'];
let asked = {};
let plan = '';
let undoing = '';
let wasDone = false;

const recent = () => {
    try {
        const list = JSON.parse(localStorage.getItem(RECENT) ?? '[]');
        return Array.isArray(list) ? list.filter((one) => typeof one === 'string').slice(0, MAX_RECENT) : [];
    } catch {
        return [];
    }
};

function begin(action, what) {
    [asked, plan, undoing, wasDone] = [{ ...what, action }, '', '', false];
    dialog.querySelector('h2').textContent = t(`title_${action}`);
    const label = dialog.querySelector('.folder');
    label.hidden = action === 'trash';
    form.elements.folder.readOnly = false;
    form.elements.folder.value = recent()[0] ?? '';
    form.querySelector('datalist').replaceChildren(...recent().map((folder) => new Option('', folder)));
    said.replaceChildren();
    step('undo').hidden = true;
    step('cancel').textContent = t('cancel');
    [next.hidden, next.textContent] = [false, t('continue')];
    dialog.showModal();
    if (action === 'trash') list();
}

async function answered(call) {
    next.disabled = true;
    said.setAttribute('aria-busy', 'true');
    const answer = await call;
    next.disabled = false;
    said.removeAttribute('aria-busy');
    said.innerHTML = answer.html ?? page.message(answer);
    return answer;
}

async function list() {
    asked.folder = form.elements.folder.value.trim();
    const answer = await answered(page.local('plan', asked));
    plan = answer.plan ?? '';
    if (!plan) return;
    next.textContent = t(`do_${asked.action}`);
    next.focus();
}

async function act() {
    said.textContent = t('working');
    const answer = await answered(page.local('run', { plan }));
    plan = '';
    if (answer.message) return;
    wasDone = true;
    if (asked.folder) {
        localStorage.setItem(RECENT, JSON.stringify([...new Set([asked.folder, ...recent()])].slice(0, MAX_RECENT)));
    }
    undoing = answer.undo;
    next.hidden = form.elements.folder.readOnly = true;
    step('undo').hidden = !undoing;
    step('cancel').textContent = t('close');
    step('cancel').focus();
}

form.addEventListener('submit', (event) => {
    event.preventDefault();
    if (next.hidden) return;
    if (plan) act();
    else list();
});
form.elements.folder.addEventListener('input', () => {  // the plan was for another folder
    if (!plan) return;
    plan = '';
    next.textContent = t('continue');
    said.replaceChildren();
});
step('cancel').addEventListener('click', () => dialog.close());
step('undo').addEventListener('click', async () => {
    step('undo').hidden = true;
    await answered(page.local('undo', { undo: undoing }));
    step('cancel').focus();
});
dialog.addEventListener('close', () => {
    if (!wasDone) return;
    if (!asked.duplicates) {
        if (asked.action !== 'copy' || selected.size) end();
        document.querySelector('#search form')?.requestSubmit();  // search again: files were removed or restored
    } else document.querySelector('#library form.twice')?.requestSubmit();
});

async function download() {
    const answer = await page.local('archive', values());
    bar.querySelector('.note').textContent = answer.message ?? answer.notice ?? '';
    if (answer.archive) page.download(await page.localAddress(`archive/${answer.archive}`));
}

const deeds = { all, download, end, ...Object.fromEntries(ACTIONS.map((name) => [name, () => begin(name, values())])) };
bar.addEventListener('click', (event) => {
    const button = event.target.closest('[data-do]');
    if (button) deeds[button.dataset.do]();
});

// In the library: act on all copies except the best of each group.
document.addEventListener('click', (event) => {
    const button = event.target.closest('[data-duplicates]');
    if (button) begin(button.dataset.duplicates, { duplicates: true, ...button.closest('[data-threshold]').dataset });
});

page.hear('asked', paint);
page.hear('cards', () => { if (isSelecting) paint(); });  // scrolling loaded more cards
page.hear('gallery', end);
page.openLocal().then((access) => {
    isAllowed = access !== null;
    paint();
});
