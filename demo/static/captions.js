// One image, an upload or one of the gallery: its captions at once, its labels when asked.
const page = window.miniclip;
const file = element.querySelector('input[type=file]');
const image = element.querySelector('.drop img');
const found = element.querySelector('.found');
const labelled = element.querySelector('.labelled');
const form = element.querySelector('form');
const LOOK_EVERY_MS = 2000;
let chosen = null;  // { row, gallery } or { picture }
let newest = 0;

async function show(values, preview, title) {
    chosen = values;
    const number = ++newest;
    [image.src, image.alt, image.hidden] = [preview, title, false];
    element.querySelector('.drop').classList.add('filled');
    found.setAttribute('aria-busy', 'true');
    const answer = await page.call(server.describe, values);
    if (number !== newest) return;
    found.removeAttribute('aria-busy');
    found.innerHTML = answer.html ?? page.message(answer.message);
    labelled.innerHTML = '';
    if (answer.message) {  // unreadable: ready for another
        chosen = null;
        image.hidden = true;
        element.querySelector('.drop').classList.remove('filled');
        return;
    }
    await label();
    if (answer.wait) await captions(number);
}

// Captions that are still being embedded come by themselves, unless another image is chosen.
async function captions(number) {
    for (;;) {
        await new Promise((resolve) => { setTimeout(resolve, LOOK_EVERY_MS); });
        if (number !== newest) return;
        const answer = await page.call(server.describe, chosen);
        if (number !== newest) return;
        if (answer.wait) continue;
        found.innerHTML = answer.html ?? page.message(answer.message);
        return;
    }
}

const showRow = (row, preview, title) => show({ row, gallery: page.galleryOf(preview) }, preview, title);

async function take(one) {
    const taken = await page.upload(upload, one);
    file.value = '';
    if (taken.message) found.innerHTML = page.message(taken.message);
    else await show({ picture: taken.path }, taken.preview, taken.name);
}

async function label() {
    const number = newest;
    const answer = await page.call(server.label, {
        ...chosen, labels: form.elements.labels.value, templates: form.elements.templates.value,
    });
    if (number === newest) labelled.innerHTML = answer.html ?? page.message(answer.message);
}

function describePending() {
    const { describe } = page.pending;
    if (!describe) return;
    delete page.pending.describe;
    showRow(describe.row, describe.preview, describe.title);
}

file.addEventListener('change', () => { if (file.files[0]) take(file.files[0]); });
page.takers.push({ element, take });
form.addEventListener('submit', (event) => {
    event.preventDefault();
    label();
});
element.querySelector('.picks').addEventListener('click', (event) => {
    const pick = event.target.closest('button');
    if (pick) showRow(Number(pick.dataset.row), pick.dataset.large, pick.title);
});
page.hear('describe', describePending);

(async () => {
    const offers = await page.call(server.offers);
    form.elements.labels.value = offers.labels ?? '';
    form.elements.templates.value = offers.templates ?? '';
    const picks = (offers.cards ?? []).map(({ row, preview, title }) => {
        const pick = document.createElement('button');
        [pick.type, pick.title, pick.dataset.row] = ['button', title, row];
        pick.dataset.large = preview.replace('/small/', '/large/');
        const thumbnail = new Image();
        [thumbnail.src, thumbnail.alt] = [preview, title];
        pick.append(thumbnail);
        return pick;
    });
    element.querySelector('.picks').replaceChildren(...picks);
    describePending();
})();
