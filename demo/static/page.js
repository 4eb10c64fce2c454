// What all parts of the page share: the question that is asked now, its address, and who opens an image.
// A part tells another something by an event of the document: 'ask' (change the question), 'open' (an image, large),
// 'describe' (captions for it), 'asked' (answered: colour the map anew).
(() => {
    const KEYS = ['q', 'not', 'like', 'weight', 'folder', 'after', 'before', 'copies'];
    const shared = window.miniclip = { question: {} };

    shared.tell = (name, detail) => document.dispatchEvent(new CustomEvent(`miniclip-${name}`, { detail }));
    shared.hear = (name, listen) => document.addEventListener(`miniclip-${name}`, (event) => listen(event.detail));

    // Rows count in one gallery only: which one, stands in the addresses of its previews.
    shared.galleryOf = (preview) => preview?.match(/preview\/(\w+)\//)?.[1];

    // A tab's own part exists once the tab was shown; what is told it before that waits in `pending`.
    shared.pending = {};
    shared.show = (tab) => document.getElementById(`${tab}-tab-button`)?.click();

    // Every call answers: what fails on the way becomes the same message that the server would send.
    shared.call = async (fn, values = {}) => {
        try {
            return await fn(values) ?? {};
        } catch {
            return { message: 'The server does not answer. Is it still running?' };
        }
    };

    shared.message = (text) => {
        const line = document.createElement('p');
        line.className = 'message';
        line.setAttribute('role', 'status');
        line.textContent = text;
        return line.outerHTML;
    };

    shared.toAddress = (question) => {
        const fields = new URLSearchParams();
        for (const key of KEYS) if (question[key]) fields.set(key, question[key]);
        return fields.size ? `?${fields}` : location.pathname;
    };
    shared.fromAddress = () => {
        const fields = new URLSearchParams(location.search);
        return Object.fromEntries(KEYS.filter((key) => fields.get(key)).map((key) => [key, fields.get(key)]));
    };

    // An uploaded image as the server knows it. Whatever goes wrong is one sentence.
    shared.upload = async (upload, file) => {
        if (!file) return { message: 'This is no image.' };
        try {
            const { path } = await upload(file);
            if (!path) throw new Error();
            return { path, name: file.name || 'pasted image', preview: URL.createObjectURL(file) };
        } catch {
            return { message: 'This image could not be uploaded: it may be larger than 20 MB.' };
        }
    };

    // Pictures dropped or pasted anywhere go to the part that is on the screen: parts put themselves into `takers`.
    shared.takers = [];
    const take = (files, event) => {
        const taker = shared.takers.find((one) => one.element.offsetParent !== null);
        if (!taker || !files.length || document.querySelector('dialog[open]')) return;
        event.preventDefault();
        taker.take(files[0]);
    };
    document.addEventListener('paste', (event) => take([...(event.clipboardData?.files ?? [])], event));
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
            take([...event.dataTransfer.files], event);
        }
    });

    // A card, wherever it stands, opens the large view.
    document.addEventListener('click', (event) => {
        const card = event.target.closest('button.card');
        if (card) shared.tell('open', { card });
    });
})();
