// Functions that the scripts for files and searches share. Files of this machine are available only if the server allows
// this browser to use them (demo/local_access.py).
(() => {
    const shared = window.miniclip;
    const { t } = shared;

    const post = async (path, values) => {
        try {
            const response = await fetch(new URL(`local/${path}`, document.baseURI), {
                method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(values),
            });
            const answer = await response.json();
            return response.ok ? answer : { message: answer.message ?? answer.detail };
        } catch {
            return { message: t('no_answer') };
        }
    };

    // Resolves to { key, canShow }, or to null if files are not available.
    let opened;
    shared.openLocal = () => {
        if (!shared.isLocal) return Promise.resolve(null);
        opened ??= post('open', {}).then((answer) => {
            if (!answer.key) opened = undefined;  // the next action tries again
            return answer.key ? answer : null;
        });
        return opened;
    };

    // Calls an action of demo/local_files.py. If the request fails, resolves to { message }, as `shared.call` does.
    shared.local = async (action, values) => {
        const access = await shared.openLocal();
        return access ? post(`${access.key}/${action}`, values) : { message: t('files_only_here') };
    };

    shared.localAddress = async (path) => {
        const access = await shared.openLocal();
        return access ? new URL(`local/${access.key}/${path}`, document.baseURI).href : '';
    };

    // The button of this class above the results. It is added if there is none yet.
    shared.resultButton = (name, label) => {
        const heading = document.querySelector('#results .heading');
        if (!heading || heading.querySelector(`.${name}`)) return heading?.querySelector(`.${name}`);
        if (!heading.querySelector('.downloads')) heading.append(shared.make('span', { className: 'downloads' }));
        const button = shared.make('button', { type: 'button', className: name }, label);
        heading.querySelector('.downloads').prepend(button);
        return button;
    };

    shared.download = (address, name = '') => shared.make('a', { href: address, download: name }).click();
})();
