// Status, indexing with its progress, models, duplicates.
const page = window.miniclip;
const { t } = page;
const POLL_MS = 300;
const place = (name) => element.querySelector(name);
const job = place('.job');
let following = false;

async function status() {
    const answer = await page.call(server.status);
    place('.facts-of-index').innerHTML = answer.html ?? page.message(answer);
    place('.models').innerHTML = answer.models ?? '';
    if (answer.job?.running) follow();
    else if (answer.job) showJob(answer.job);
}

function showJob({ title, done, total, report, error, running, skipped }) {
    job.replaceChildren();
    const line = document.createElement('p');
    line.textContent = error || (running ? t(total ? 'job_progress' : 'job_scanning', { title, done, total }) : t('job_done', { report }));
    line.className = error ? 'message' : '';
    job.append(line);
    if (running) {
        const bar = document.createElement('progress');
        bar.setAttribute('aria-label', title);
        if (total) [bar.max, bar.value] = [total, done];
        job.append(bar);
    }
    if (!skipped.length) return;
    const list = document.createElement('ul');
    list.className = 'skipped';
    list.append(...skipped.map(({ name, reason }) => {
        const item = document.createElement('li');
        const bold = document.createElement('b');
        bold.textContent = name;
        item.append(bold, ` ${reason}`);
        return item;
    }));
    const heading = document.createElement('p');
    heading.textContent = t('skipped_list', { count: skipped.length });
    job.append(heading, list);
}

async function follow() {
    if (following) return;
    following = true;
    let answer = await page.call(server.progress);
    while (answer.job?.running) {
        showJob(answer.job);
        await new Promise((resolve) => { setTimeout(resolve, POLL_MS); });
        answer = await page.call(server.progress);
    }
    following = false;  // the user may start another job before the status below has come
    if (answer.job) showJob(answer.job);
    await status();  // the buttons can be pressed again
    if (answer.message) job.innerHTML = page.message(answer);
    else if (!answer.job.error) openGallery();
}

// The other tabs still show the previous gallery. This tab keeps the report of what was indexed.
function openGallery() {
    page.send('gallery');
    page.show('search');
}

// The patterns of a folder stay as they are unless the user changes them: an empty field then means none.
const { folder, exclude } = place('form.index').elements;
let areNew = false;
exclude.addEventListener('input', () => { areNew = true; });
folder.addEventListener('change', async () => {
    const asked = folder.value;
    const { patterns } = await page.call(server.patterns, { folder: asked });
    if (!areNew && folder.value === asked) exclude.value = patterns ?? '';
});
place('form.index').addEventListener('submit', async (event) => {
    event.preventDefault();
    const answer = await page.call(server.index, { folder: folder.value, exclude: areNew ? exclude.value : null });
    areNew = false;
    if (answer.message) job.innerHTML = page.message(answer);
    else follow();
});
place('.models').addEventListener('click', async (event) => {
    const button = event.target.closest('[data-bundle]');
    if (!button) return;
    button.disabled = true;
    button.textContent = t('opening');
    const answer = await page.call(server.use, { ...button.dataset });
    if (answer.message) {
        await status();
        job.innerHTML = page.message(answer);
    } else if (answer.job) follow();
    else {
        await status();
        openGallery();
    }
});
const twice = place('form.twice');
twice.addEventListener('input', () => { place('output').value = page.number(Number(twice.elements.threshold.value), 2); });
twice.addEventListener('submit', async (event) => {
    event.preventDefault();
    place('.copies').textContent = t('looking');
    const answer = await page.call(server.duplicates, { threshold: twice.elements.threshold.value });
    place('.copies').innerHTML = answer.html ?? page.message(answer);
});
page.hear('gallery', () => {
    place('.copies').innerHTML = '';
    status();
});
status();
