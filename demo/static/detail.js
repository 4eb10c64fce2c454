// The large view is a modal <dialog>: the browser keeps the focus inside, closes it on Esc and dims the page.
const page = window.miniclip;
const { t } = page;
const dialog = element.querySelector('dialog');
const NEAR_KM = '5';
let opened = null;  // { card, row, gallery, siblings, q }
let answer = {};

async function open({ card, row, gallery }) {
    const asked = page.question.q ?? '';
    const values = card ? card.dataset : { row, gallery };
    const mine = opened = { card, row: Number(values.row), gallery: values.gallery, siblings: card ? page.cardsAround(card) : [], q: asked };
    const found = await page.call(server.detail, {
        row: mine.row, gallery: mine.gallery, score: Number(values.score ?? 0),
        match: values.match ?? '', q: asked,
    });
    if (mine !== opened) return;
    answer = found;
    const focused = dialog.contains(document.activeElement) ? document.activeElement.dataset.action : '';
    dialog.innerHTML = answer.html ?? page.message(answer);
    for (const turn of dialog.querySelectorAll('.turn')) turn.hidden = !neighbour(turn.dataset.action);
    if (!dialog.open) dialog.showModal();
    else refocus(focused);
}

// The focused button was replaced with the previous image, and only a focused element hears keys.
function refocus(action) {
    const buttons = [...dialog.querySelectorAll('button:not([hidden])')];
    (buttons.find((button) => button.dataset.action === action) ?? buttons[0])?.focus();
}

function neighbour(direction) {
    const place = opened.siblings.indexOf(opened.card);
    return place < 0 ? undefined : opened.siblings[place + (direction === 'next' ? 1 : -1)];
}

function turn(direction) {
    const card = neighbour(direction);
    if (card) open({ card });
}

async function why(button) {
    const frame = dialog.querySelector('.frame');
    const heat = frame.querySelector('.heat');
    if (heat) {
        heat.hidden = !heat.hidden;
        button.setAttribute('aria-pressed', String(!heat.hidden));
        return;
    }
    const notice = dialog.querySelector('.notice');
    const mine = opened;
    button.disabled = true;
    notice.textContent = t('looking');
    const found = await page.call(server.why, { row: opened.row, gallery: opened.gallery, q: opened.q });
    if (mine !== opened) return;
    button.disabled = false;
    if (found.gallery_changed) notice.innerHTML = page.message(found);
    else notice.textContent = found.notice ?? found.message;
    if (!found.heat) return;
    button.setAttribute('aria-pressed', 'true');
    const image = document.createElement('img');
    image.className = 'heat';
    image.alt = t('heat_map', { words: opened.q });
    image.src = found.heat;
    const [left, top, width, height] = found.box.map((share) => `${100 * share}%`);
    Object.assign(image.style, { left, top, width, height });
    frame.append(image);
}

const actions = {
    close: () => dialog.close(),
    previous: () => turn('previous'),
    next: () => turn('next'),
    why,
    view: () => page.send('view', { ...opened, title: answer.title, second: answer.second }),
    like: () => {
        dialog.close();
        page.send('ask', { like: answer.like, title: answer.title, preview: answer.small });
    },
    add: () => {
        dialog.close();
        page.send('ask', { like: answer.like, title: answer.title, preview: answer.small, keepWords: true });
    },
    near: () => {
        dialog.close();
        page.send('ask', { near: answer.near, within_km: NEAR_KM });
    },
    describe: () => {
        dialog.close();
        page.pending.describe = { row: opened.row, gallery: opened.gallery, large: answer.large, title: answer.title };
        page.show('describe');
        page.send('describe');
    },
};

dialog.addEventListener('click', (event) => {
    if (event.target === dialog) dialog.close();  // the dimmed page around it
    const button = event.target.closest('[data-action]');
    if (button) actions[button.dataset.action](button);
});
dialog.addEventListener('keydown', (event) => {
    if (event.key === 'ArrowRight') turn('next');
    if (event.key === 'ArrowLeft') turn('previous');
});
dialog.addEventListener('close', () => opened?.card?.isConnected && opened.card.focus());
page.hear('open', open);
