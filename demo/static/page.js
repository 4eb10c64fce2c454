// Functions that all parts of the page share: the current search and its address, calls to the server, uploads, messages.
// Parts send each other events of the document: 'ask' (change the search), 'open' (show an image large),
// 'describe' (captions for it), 'asked' (results are shown), 'cards' (more of them came while scrolling), 'turned' (the
// large view shows a card), 'gallery' (another gallery is open: load everything again).
// app.py sets window.miniclip to the settings of search_request.py, and its `languages` to the tables of i18n.py, before
// this script runs.
(() => {
    const shared = Object.assign(window.miniclip, { question: {} });

    // The page's language, as demo/i18n.py and Gradio choose it, and `t` as there: the text of a key with its values.
    const preferred = navigator.language.split('-')[0].toLowerCase();
    shared.language = preferred in shared.languages ? preferred : 'en';
    const table = shared.languages[shared.language];
    shared.number = (value, digits = 0) => value.toLocaleString(shared.language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
    const t = shared.t = (key, values = {}) => {
        const text = (values.count === 1 && table[`${key}_one`]) || table[key];
        return text.replace(/\{(\w+)\}/g, (_, name) => (typeof values[name] === 'number' ? shared.number(values[name]) : values[name]));
    };

    shared.send = (name, detail) => document.dispatchEvent(new CustomEvent(`miniclip-${name}`, { detail }));
    shared.hear = (name, listen) => document.addEventListener(`miniclip-${name}`, (event) => listen(event.detail));

    // A tab's part exists only after the tab was shown once; events for it wait in `pending`.
    shared.pending = {};
    shared.show = (tab) => document.getElementById(`${tab}-tab-button`)?.click();

    // A call always answers: a failed request becomes a message like those of the server.
    shared.call = async (fn, values = {}) => {
        try {
            return await fn(values) ?? {};
        } catch {
            return { message: t('no_answer') };
        }
    };

    shared.message = ({ message, gallery_changed: isStale }) => {
        const line = document.createElement('p');
        line.className = 'message';
        line.setAttribute('role', 'status');
        line.textContent = message;
        if (isStale) {
            const button = document.createElement('button');
            [button.type, button.textContent, button.dataset.action] = ['button', t('show_new_gallery'), 'new-gallery'];
            line.append(button);
        }
        return line.outerHTML;
    };
    document.addEventListener('click', (event) => {
        if (!event.target.closest('[data-action=new-gallery]')) return;
        document.querySelector('dialog[open]')?.close();
        shared.send('gallery');
    });

    shared.toAddress = (question) => {
        const fields = new URLSearchParams();
        for (const name of shared.addressFields) if (question[name]) fields.set(name, question[name]);
        return fields.size ? `?${fields}` : location.pathname;
    };
    shared.fromAddress = () => {
        const fields = new URLSearchParams(location.search);
        return Object.fromEntries(shared.addressFields.filter((name) => fields.get(name)).map((name) => [name, fields.get(name)]));
    };

    // Uploads an image. Answers with its path on the server, or with a message that says what went wrong.
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
        const said = await answer.json().catch(() => ({}));
        if (!answer.ok) return { message: REFUSED[answer.status] ?? t('upload_failed', { reason: said.detail ?? t('http_status', { status: answer.status }) }) };
        return { path: said[0], name: file.name || t('pasted_image'), preview: URL.createObjectURL(file) };
    };

    // Images that are dropped or pasted anywhere go to the visible part: parts register in `receivers`.
    shared.receivers = [];
    const receive = (files, event) => {
        const receiver = shared.receivers.find((one) => one.element.offsetParent !== null);
        if (!receiver || !files.length || document.querySelector('dialog[open]')) return;
        event.preventDefault();
        receiver.receive(files[0]);
    };
    document.addEventListener('paste', (event) => receive([...(event.clipboardData?.files ?? [])], event));
    const dragging = (on) => document.documentElement.classList.toggle('dragging', on);
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

    // A card and its neighbours, in order. A timeline brings them into the document first.
    shared.cardsAround = (card) => {
        shared.send('turned', card);
        return [...(card.closest('.timeline') ?? card.closest('ul')).querySelectorAll('button.card')];
    };

    // A card opens the large view, in every part.
    document.addEventListener('click', (event) => {
        const card = event.target.closest('button.card');
        if (card) shared.send('open', { card });
    });
})();
