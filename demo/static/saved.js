// Searches that the user saved under a name, in this browser only: { name, fields }. The fields have the names of the address's parameters.
const page = window.miniclip;
const { t } = page;
const STORE = 'miniclip-searches';
const MAX_SAVED = 100;
const menu = element.querySelector('.saved');
const dialog = element.querySelector('dialog');
const form = dialog.querySelector('form');
const said = dialog.querySelector('.said');

function stored() {
    try {
        const list = JSON.parse(localStorage.getItem(STORE) ?? '[]');
        return Array.isArray(list) ? list.filter((one) => typeof one?.name === 'string' && one.fields && typeof one.fields === 'object') : [];
    } catch {
        return [];
    }
}

function store(list) {
    localStorage.setItem(STORE, JSON.stringify(list));
    show();
}

function show() {
    const list = stored();
    menu.hidden = !list.length;
    menu.querySelector('summary').textContent = t('saved_number', { number: list.length });
    menu.querySelector('ul').replaceChildren(...list.map(({ name }, place) => {
        const item = document.createElement('li');
        const [open, remove] = [document.createElement('button'), document.createElement('button')];
        [open.type, open.textContent, open.dataset.open] = ['button', name, place];
        [remove.type, remove.textContent, remove.dataset.remove] = ['button', '×', place];
        remove.setAttribute('aria-label', t('delete_saved', { name }));
        item.append(open, remove);
        return item;
    }));
}

// The address does not contain an uploaded image, so such a search cannot be restored.
const fields = () => Object.fromEntries(page.addressFields.filter((name) => page.question[name]).map((name) => [name, page.question[name]]));

document.addEventListener('click', (event) => {
    if (!event.target.closest('.save-search')) {
        if (menu.open && !menu.contains(event.target)) menu.open = false;
        return;
    }
    form.elements.name.value = page.question.q || document.querySelector('#results h2')?.textContent || '';
    said.textContent = page.question.picture ? t('image_not_saved') : '';
    dialog.showModal();
    form.elements.name.select();
});
form.addEventListener('submit', (event) => {
    event.preventDefault();
    const name = form.elements.name.value.trim();
    if (!name) return;
    const others = stored().filter((one) => one.name !== name);
    if (others.length < stored().length && form.dataset.replaces !== name) {
        form.dataset.replaces = name;
        said.textContent = t('search_name_taken');
        return;
    }
    if (others.length >= MAX_SAVED) {
        said.textContent = t('max_saved', { number: MAX_SAVED });
        return;
    }
    try {
        store([...others, { name, fields: fields() }]);
        dialog.close();
    } catch {
        said.textContent = t('browser_keeps_nothing');
    }
});
dialog.addEventListener('close', () => delete form.dataset.replaces);
dialog.querySelector('[data-step=cancel]').addEventListener('click', () => dialog.close());
menu.addEventListener('click', (event) => {
    const { open, remove } = event.target.dataset;
    const list = stored();
    if (open) {
        menu.open = false;
        page.send('ask', list[open]?.fields ?? {});
    }
    if (remove) {
        store(list.toSpliced(Number(remove), 1));
        (menu.querySelector('button') ?? document.getElementById('words')).focus();
    }
});
menu.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape') return;
    menu.open = false;
    menu.querySelector('summary').focus();
});
addEventListener('storage', show);  // another tab of this browser

// The menu is placed beside the filters, whichever of the two parts loads first.
function stand() {
    if (!menu.closest('#search')) document.querySelector('#search .toggle')?.before(menu);
}
page.hear('asked', () => {
    stand();
    page.resultButton('save-search', t('save_search'));
});
stand();
show();
