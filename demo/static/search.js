// The form is the search. It asks after a short pause in typing; only the newest answer is shown.
const PAUSE_MS = 90;
const page = window.miniclip;
const { t } = page;
const form = element.querySelector('form');
const results = element.querySelector('.results');
const more = element.querySelector('#more');
const withImage = element.querySelector('.with');
const fields = form.elements;
const sort = element.querySelector('.sort');
let hasDates = false;
let uploaded = null;  // { path, name, preview }
let like = null;  // an image of the gallery: { id, title, preview }
let shown = page.pageSize;
let newest = 0;
let isTouched = false;  // the user typed before the first answer came
let isExample = false;  // the words are an example that the page filled in by itself
let isTyping = false;  // the newest entry of the history is still being typed
let pause;

const filters = filterPanel(element, fields, page.filters, page.galleryFilters, t);
const timeline = makeTimeline(results, page, server);

const question = () => ({
    q: fields.q.value.trim(),
    like: like?.id ?? '',
    picture: uploaded?.path ?? '',
    weight: (uploaded || like) && fields.weight.value !== '50' ? fields.weight.value : '',
    sort: fields.sort.value,
    ...filters.values(),
    shown,
});

// While the user types, all versions share one entry of the history, so that Back leads to the search before.
function remember(address, entry) {
    const isNew = address !== location.pathname + location.search && address !== location.search;
    const continues = !entry || (isTyping && entry !== 'new');
    if (isNew) history[continues ? 'replaceState' : 'pushState'](null, '', address);
    isTyping = entry === 'typed' && (isNew || isTyping);
}

// `entry` in the history: 'typed', 'entered', 'new' for another search at once, or none.
async function ask({ keepCount = false, entry } = {}) {
    clearTimeout(pause);
    if (!keepCount) shown = page.pageSize;
    const asked = page.question = question();
    const number = ++newest;
    remember(page.toAddress(asked), entry);
    results.setAttribute('aria-busy', 'true');
    const browses = !asked.q && !asked.like && !asked.picture;
    const answer = await page.call(browses ? server.browse : server.search, asked);
    if (number !== newest) return;
    results.removeAttribute('aria-busy');
    sort.hidden = browses || !hasDates;  // all images are in order of date already
    if (answer.months) timeline.show(answer, asked);
    else timeline.hide(answer.html ?? page.message(answer));
    results.dataset.answered = asked.q;
    results.dataset.searchMs = answer.search_ms ?? '';
    more.hidden = !answer.more;
    showNumbers();
    if (answer.like && like) {
        Object.assign(like, answer.like);
        showImage();
    }
    if (answer.unreadable && uploaded?.path === asked.picture) {  // the form is ready for another image
        uploaded = null;
        showImage();
    }
    page.send('asked');
}

// Scores are shown on demand, and the choice is remembered.
function showNumbers() {
    const on = localStorage.getItem('miniclip-numbers') === 'on';
    results.classList.toggle('with-numbers', on);
    results.querySelector('.numbers-toggle')?.setAttribute('aria-pressed', String(on));
}

function showImage() {
    const one = uploaded ?? like;
    withImage.hidden = !one;
    if (!one) return;
    if (one.preview) withImage.querySelector('img').src = one.preview;
    withImage.querySelector('.name').textContent = uploaded ? one.name : t('like_image', { title: one.title });
    withImage.querySelector('.weight').hidden = !fields.q.value.trim();
}

async function receive(file) {
    isTouched = true;
    results.setAttribute('aria-busy', 'true');
    const received = await page.upload(file);
    fields.file.value = '';
    if (received.message) {
        results.removeAttribute('aria-busy');
        timeline.hide(page.message(received));
        return;
    }
    if (isExample) fields.q.value = '';  // the user asked for the image, not for the example
    isExample = false;
    [uploaded, like] = [received, null];
    showImage();
    await ask({ entry: 'new' });
}

function fill(values) {
    fields.q.value = values.q ?? '';
    filters.fill(values);
    fields.sort.value = values.sort ?? '';
    fields.weight.value = values.weight ?? 50;
    uploaded = null;
    like = values.like ? { id: values.like, title: values.title ?? t('an_image'), preview: values.preview ?? '' } : null;
    isExample = false;
    showImage();
}

form.addEventListener('submit', (event) => {
    event.preventDefault();
    isExample = false;
    ask({ entry: 'entered' });
});
form.addEventListener('input', (event) => {
    isTouched = true;
    if (event.target === fields.file) return;
    if (event.target === fields.q) isExample = false;
    clearTimeout(pause);
    filters.count();
    showImage();
    pause = setTimeout(() => ask({ entry: 'typed' }), PAUSE_MS);
});
fields.file.addEventListener('change', () => { if (fields.file.files[0]) receive(fields.file.files[0]); });
page.receivers.push({ element, receive });
more.addEventListener('click', () => {
    shown += page.pageSize;
    ask({ keepCount: true });
});
results.addEventListener('click', (event) => {
    if (!event.target.closest('.numbers-toggle')) return;
    localStorage.setItem('miniclip-numbers', results.classList.contains('with-numbers') ? 'off' : 'on');
    showNumbers();
});
element.querySelector('.clear').addEventListener('click', () => {
    filters.fill({});
    ask({ entry: 'typed' });
});
element.querySelector('.remove').addEventListener('click', () => {
    uploaded = like = null;
    showImage();
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

// Set the form's choices for the open gallery.
async function offer() {
    const about = await page.call(server.about);
    const chips = (about.examples ?? []).map((words) => {
        const chip = document.createElement('button');
        [chip.type, chip.textContent] = ['button', words];
        return chip;
    });
    element.querySelector('.examples').replaceChildren(...chips);
    fields.q.placeholder = about.placeholder ?? fields.q.placeholder;
    filters.offer(about.filters ?? {});
    hasDates = Boolean(about.days);
    if (about.days) for (const name of ['after', 'before']) [fields[name].min, fields[name].max] = about.days;
    element.querySelector('#status-line').textContent = about.status ?? '';
    element.querySelector('#attribution').textContent = about.attribution ?? '';
    return about;
}

async function start(values) {
    const { examples = [], days } = await offer();
    if (isTouched) return;
    const wantsExample = !Object.keys(values).length && !days;  // images with dates are shown by date instead
    fill(wantsExample ? { q: examples[0] ?? '' } : values);
    isExample = wantsExample;
    await ask();
}

page.hear('gallery', () => {
    isTouched = false;
    history.pushState(null, '', location.pathname);
    start({});
});

(async () => {
    await start(page.fromAddress());
    if (matchMedia('(pointer: fine)').matches) fields.q.focus({ preventScroll: true });
})();
