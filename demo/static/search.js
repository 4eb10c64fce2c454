// The form is the question. It asks after a short rest in typing; of several answers only the newest question's is shown.
const REST_MS = 90;
const STEP = 24;
const page = window.miniclip;
const form = element.querySelector('form');
const results = element.querySelector('.results');
const more = element.querySelector('#more');
const withPicture = element.querySelector('.with');
const filters = element.querySelector('.filters');
const toggle = element.querySelector('.toggle');
const fields = form.elements;
let picture = null;  // an upload: { path, name, preview }
let like = null;  // an image of the gallery: { id, title, preview }
let shown = STEP;
let newest = 0;
let isTouched = false;  // by a user who was faster than the first answer
let isTyping = false;  // the newest entry of the history holds a question that is still being typed
let resting;

const question = () => ({
    q: fields.q.value.trim(),
    not: fields.not.value.trim(),
    like: like?.id ?? '',
    picture: picture?.path ?? '',
    weight: (picture || like) && fields.weight.value !== '50' ? String(100 - fields.weight.value) : '',
    folder: fields.folder.value,
    after: fields.after.value,
    before: fields.before.value,
    copies: fields.copies.checked ? '1' : '',
    shown,
});

// What is typed has one entry in the history until it is entered, so Back leads from question to question.
function remember(address, entry) {
    const isNew = address !== location.pathname + location.search && address !== location.search;
    const goesOn = !entry || (isTyping && entry !== 'new');
    if (isNew) history[goesOn ? 'replaceState' : 'pushState'](null, '', address);
    isTyping = entry === 'typed' && (isNew || isTyping);
}

// `entry` in the history: 'typed', 'entered', 'new' for another question at once, or none.
async function ask({ keepCount = false, entry } = {}) {
    clearTimeout(resting);
    if (!keepCount) shown = STEP;
    const asked = page.question = question();
    const number = ++newest;
    remember(page.toAddress(asked), entry);
    results.setAttribute('aria-busy', 'true');
    const answer = await page.call(server.search, asked);
    if (number !== newest) return;
    results.removeAttribute('aria-busy');
    results.innerHTML = answer.html ?? page.message(answer.message);
    results.dataset.answered = asked.q;
    results.dataset.searchMs = answer.search_ms ?? '';
    more.hidden = !answer.more;
    if (answer.like && like) {
        Object.assign(like, answer.like);
        showPicture();
    }
    if (answer.unreadable && image?.path === asked.image) {  // the form is ready for another
        image = null;
        showPicture();
    }
    page.tell('asked');
}

function showPicture() {
    const one = image ?? like;
    withPicture.hidden = !one;
    if (!one) return;
    if (one.preview) withPicture.querySelector('img').src = one.preview;
    withPicture.querySelector('.name').textContent = image ? one.name : `like “${one.title}”`;
    withPicture.querySelector('.weight').hidden = !fields.q.value.trim();
}

function showFilters(open) {
    filters.hidden = !open;
    toggle.setAttribute('aria-expanded', String(open));
}

function countFilters() {
    const set = ['not', 'folder', 'after', 'before'].filter((name) => fields[name].value).length + fields.copies.checked;
    toggle.textContent = set ? `Filters (${set})` : 'Filters';
}

async function takePicture(file) {
    isTouched = true;
    results.setAttribute('aria-busy', 'true');
    const taken = await page.upload(upload, file);
    fields.file.value = '';
    if (taken.message) {
        results.removeAttribute('aria-busy');
        results.innerHTML = page.message(taken.message);
        return;
    }
    [picture, like] = [taken, null];
    await ask();
    showPicture();
}

function fill(values) {
    for (const name of ['q', 'not', 'folder', 'after', 'before']) fields[name].value = values[name] ?? '';
    fields.weight.value = values.weight ? 100 - values.weight : 50;
    fields.copies.checked = Boolean(values.copies);
    picture = null;
    like = values.like ? { id: values.like, title: values.title ?? 'an image', preview: values.preview ?? '' } : null;
    if (values.not || values.folder || values.after || values.before || values.copies) showFilters(true);
    countFilters();
    showPicture();
}

form.addEventListener('submit', (event) => {
    event.preventDefault();
    ask({ entry: 'entered' });
});
form.addEventListener('input', (event) => {
    isTouched = true;
    if (event.target === fields.file) return;
    clearTimeout(resting);
    countFilters();
    showPicture();
    resting = setTimeout(() => ask({ entry: 'typed' }), REST_MS);
});
fields.file.addEventListener('change', () => { if (fields.file.files[0]) takePicture(fields.file.files[0]); });
page.takers.push({ element, take: takePicture });
more.addEventListener('click', () => {
    shown += STEP;
    ask({ keepCount: true });
});
toggle.addEventListener('click', () => showFilters(filters.hidden));
element.querySelector('.clear').addEventListener('click', () => {
    for (const name of ['not', 'folder', 'after', 'before']) fields[name].value = '';
    fields.copies.checked = false;
    countFilters();
    ask({ entry: 'typed' });
});
element.querySelector('.remove').addEventListener('click', () => {
    picture = like = null;
    showPicture();
    fields.q.focus();
    ask({ entry: 'new' });
});
element.querySelector('.examples').addEventListener('click', (event) => {
    const chip = event.target.closest('button');
    if (!chip) return;
    fill({ q: chip.textContent });
    ask({ entry: 'new' });
});
page.hear('ask', (values) => {
    fill({ ...values, q: values.keepWords ? fields.q.value : values.q ?? '' });
    page.show('search');
    scrollTo({ top: 0 });
    ask({ entry: 'new' });
});
addEventListener('popstate', () => {
    fill(page.fromAddress());
    ask();
});

(async () => {
    const about = await page.call(server.about);
    const chips = (about.examples ?? []).map((words) => {
        const chip = document.createElement('button');
        [chip.type, chip.textContent] = ['button', words];
        return chip;
    });
    element.querySelector('.examples').replaceChildren(...chips);
    for (const [folder, name] of about.folders ?? []) fields.folder.add(new Option(name, folder));
    element.querySelector('.in-folder').hidden = !about.folders?.length;
    for (const label of element.querySelectorAll('.by-day')) label.hidden = !about.days;
    if (about.days) for (const name of ['after', 'before']) [fields[name].min, fields[name].max] = about.days;
    element.querySelector('#status-line').textContent = about.status ?? '';
    element.querySelector('#attribution').textContent = about.attribution ?? '';
    const linked = page.fromAddress();
    if (isTouched) return;
    fill(Object.keys(linked).length ? linked : { q: about.examples?.[0] ?? '' });
    await ask();
    if (matchMedia('(pointer: fine)').matches) fields.q.focus({ preventScroll: true });
})();
