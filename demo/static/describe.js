// One image, an upload or one of the gallery: its captions at once, its labels on demand.
const page = window.miniclip;
const file = element.querySelector('input[type=file]');
const image = element.querySelector('.drop img');
const found = element.querySelector('.found');
const labelled = element.querySelector('.labelled');
const form = element.querySelector('form');
const POLL_MS = 2000;
let chosen = null;  // { row, gallery } or { picture }
let newest = 0;

function showImage(preview, title) {
    [image.src, image.alt, image.hidden] = [preview ?? '', title ?? '', !preview];
    if (!preview) image.removeAttribute('src');
    element.querySelector('.drop').classList.toggle('filled', Boolean(preview));
}

async function show(values, preview, title) {
    chosen = values;
    const number = ++newest;
    showImage(preview, title);
    found.setAttribute('aria-busy', 'true');
    const answer = await page.call(server.describe, values);
    if (number !== newest) return;
    found.removeAttribute('aria-busy');
    found.innerHTML = answer.html ?? page.message(answer);
    labelled.innerHTML = '';
    if (answer.message && !answer.wait) {  // unreadable: ready for another image
        chosen = null;
        showImage();
        return;
    }
    await label();
    if (answer.wait) await waitForCaptions(number);
}

// Captions that are still being embedded appear by themselves, unless another image is chosen.
async function waitForCaptions(number) {
    for (;;) {
        await new Promise((resolve) => { setTimeout(resolve, POLL_MS); });
        if (number !== newest) return;
        const answer = await page.call(server.describe, chosen);
        if (number !== newest) return;
        if (answer.wait) continue;
        found.innerHTML = answer.html ?? page.message(answer);
        return;
    }
}

const showRow = ({ row, gallery, large, title }) => show({ row: Number(row), gallery }, large, title);

async function receive(one) {
    const received = await page.upload(one);
    file.value = '';
    if (received.message) found.innerHTML = page.message(received);
    else await show({ picture: received.path }, received.preview, received.name);
}

async function label() {
    const number = newest;
    const answer = await page.call(server.label, {
        ...chosen, labels: form.elements.labels.value, templates: form.elements.templates.value,
    });
    if (number === newest) labelled.innerHTML = answer.html ?? page.message(answer);
}

function describePending() {
    const { describe } = page.pending;
    if (!describe) return;
    delete page.pending.describe;
    showRow(describe);
}

async function suggest() {
    const { images = [], labels = '', templates = '' } = await page.call(server.suggestions);
    form.elements.labels.value ||= labels;
    form.elements.templates.value ||= templates;
    const picks = images.map(({ row, gallery, title, small, large }) => {
        const pick = document.createElement('button');
        [pick.type, pick.title] = ['button', title];
        Object.assign(pick.dataset, { row, gallery, large });
        const thumbnail = new Image();
        [thumbnail.src, thumbnail.alt] = [small, title];
        pick.append(thumbnail);
        return pick;
    });
    element.querySelector('.picks').replaceChildren(...picks);
}

file.addEventListener('change', () => { if (file.files[0]) receive(file.files[0]); });
page.receivers.push({ element, receive });
form.addEventListener('submit', (event) => {
    event.preventDefault();
    label();
});
element.querySelector('.picks').addEventListener('click', (event) => {
    const pick = event.target.closest('button');
    if (pick) showRow({ ...pick.dataset, title: pick.title });
});
page.hear('describe', describePending);
page.hear('gallery', () => {
    newest += 1;
    chosen = null;
    showImage();
    found.innerHTML = labelled.innerHTML = '';
    suggest();
});
suggest().then(describePending);
