// Functions that all parts of the page share: the current search and its address, calls to the server, uploads, messages.
// Parts communicate by events of the document:
//   search    change the search
//   results   results are shown
//   cards     scrolling has loaded more results
//   open      show an image in the large view
//   turned    the large view shows this card
//   view      show an image on the whole screen
//   describe  show captions for the image in `pending.describe`
//   gallery   another gallery is open: load everything again
// Before this script runs, app.py sets window.miniclip to the settings of search_request.py, and `languages` to the
// tables of i18n.py.
(() => {
    const shared = Object.assign(window.miniclip, { query: {} });

    // The page's language, chosen as in demo/i18n.py, and `t` as there: the text of a key with its values.
    const preferred = navigator.language.split('-')[0].toLowerCase();
    shared.language = preferred in shared.languages ? preferred : 'en';
    const table = shared.languages[shared.language];
    shared.number = (value, digits = 0) => value.toLocaleString(shared.language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
    const t = shared.t = (key, values = {}) => {
        const text = (values.count === 1 && table[`${key}_one`]) || table[key];
        return text.replace(/\{(\w+)\}/g, (_, name) => (typeof values[name] === 'number' ? shared.number(values[name]) : values[name]));
    };

    // Gradio sets the attribute to the browser's language, which the page may not have. Screen readers need the page's.
    const root = document.documentElement;
    const setLanguage = () => { if (root.lang !== shared.language) root.lang = shared.language; };
    new MutationObserver(setLanguage).observe(root, { attributeFilter: ['lang'] });
    setLanguage();

    // Values that this browser keeps. If it refuses, as in some private windows, nothing is kept: `keep` returns false.
    shared.kept = (name) => {
        try {
            return JSON.parse(localStorage.getItem(name));
        } catch {
            return null;
        }
    };
    shared.keep = (name, value) => {
        try {
            localStorage.setItem(name, JSON.stringify(value));
            return true;
        } catch {
            return false;
        }
    };

    shared.send = (name, detail) => document.dispatchEvent(new CustomEvent(`miniclip-${name}`, { detail }));
    shared.on = (name, listen) => document.addEventListener(`miniclip-${name}`, (event) => listen(event.detail));

    // A tab's script runs when the tab is first shown. Until then, the data of events for it waits in `pending`.
    shared.pending = {};
    shared.show = (tab) => document.getElementById(`${tab}-tab-button`)?.click();

    // A new element with these properties, data attributes and children.
    shared.make = (tag, { dataset = {}, ...properties } = {}, ...children) => {
        const element = Object.assign(document.createElement(tag), properties);
        Object.assign(element.dataset, dataset);
        element.append(...children);
        return element;
    };

    // Calls a function of the server. A failed request is answered with a message, as the server's own errors are.
    shared.call = async (fn, values = {}) => {
        try {
            return await fn(values) ?? {};
        } catch {
            return { message: t('no_answer') };
        }
    };

    shared.message = ({ message, gallery_changed: isStale }) => {
        const line = shared.make('p', { className: 'message', role: 'status', textContent: message });
        if (isStale) line.append(shared.make('button', { type: 'button', dataset: { action: 'new-gallery' } }, t('show_new_gallery')));
        return line.outerHTML;
    };
    document.addEventListener('click', (event) => {
        if (!event.target.closest('[data-action=new-gallery]')) return;
        document.querySelector('dialog[open]')?.close();
        shared.send('gallery');
    });

    // The fields of a search that its address contains.
    shared.addressed = (query) => Object.fromEntries(shared.addressFields.filter((name) => query[name]).map((name) => [name, query[name]]));
    shared.toAddress = (query) => {
        const fields = new URLSearchParams(shared.addressed(query));
        return fields.size ? `?${fields}` : location.pathname;
    };
    shared.fromAddress = () => shared.addressed(Object.fromEntries(new URLSearchParams(location.search)));

    // Uploads an image. Resolves to its path on the server, or to a message that says what went wrong.
    const REFUSED = { 401: t('session_ended'), 404: t('no_place_for_uploads') };
    shared.upload = async (file) => {
        if (!file) return { message: t('not_an_image') };
        const tooLarge = { message: t('image_too_large', { number: shared.maxUploadMB }) };
        if (file.size > shared.maxUploadMB * 2 ** 20) return tooLarge;
        const form = new FormData();
        form.append('files', file);
        let answer;
        try {
            answer = await fetch(new URL('gradio_api/upload', document.baseURI), { method: 'POST', body: form });
        } catch {
            return { message: t('no_answer') };
        }
        if (answer.status === 413) return tooLarge;
        const body = await answer.json().catch(() => ({}));
        if (!answer.ok) return { message: REFUSED[answer.status] ?? t('upload_failed', { reason: body.detail ?? t('http_status', { status: answer.status }) }) };
        return { path: body[0], name: file.name || t('pasted_image'), preview: URL.createObjectURL(file) };
    };

    // An image that is dropped or pasted anywhere goes to the visible one of `receivers`, where parts register themselves.
    shared.receivers = [];
    const receive = (files, event) => {
        const receiver = shared.receivers.find((one) => one.element.offsetParent !== null);
        if (!receiver || !files.length || document.querySelector('dialog[open]')) return;
        event.preventDefault();
        receiver.receive(files[0]);
    };
    document.addEventListener('paste', (event) => receive([...(event.clipboardData?.files ?? [])], event));
    const dragging = (on) => {
        document.body.dataset.drop = t('drop_anywhere');
        root.classList.toggle('dragging', on);
    };
    document.addEventListener('dragover', (event) => {
        if (![...event.dataTransfer.types].includes('Files')) return;
        event.preventDefault();
        dragging(true);
    });
    document.addEventListener('dragleave', (event) => { if (!event.relatedTarget) dragging(false); });
    document.addEventListener('drop', (event) => {
        dragging(false);
        if ([...event.dataTransfer.types].includes('Files')) {
            event.preventDefault();
            receive([...event.dataTransfer.files], event);
        }
    });

    // A card and its neighbours, in order. On the event, a timeline puts them into the document.
    shared.cardsAround = (card) => {
        if (!card?.isConnected) return [];
        shared.send('turned', card);
        return [...(card.closest('.timeline') ?? card.closest('ul')).querySelectorAll('button.card')];
    };

    // A click on any card of the page opens the large view.
    document.addEventListener('click', (event) => {
        const card = event.target.closest('button.card');
        if (card) shared.send('open', { card });
    });
})();
