// Functions that the scripts for files and searches share. Files of this machine are available only if the server allows
// this browser to use them (demo/local_access.py).
(() => {
    const shared = window.miniclip;
    const { t } = shared;

    const post = async (path, values) => {
        try {
            const answer = await fetch(new URL(`local/${path}`, document.baseURI), {
                method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(values),
            });
            const said = await answer.json();
            return answer.ok ? said : { message: said.message ?? said.detail };
        } catch {
            return { message: t('no_answer') };
        }
    };

    // Resolves to { key, canShow }, or to null if files are not available.
    let opened;
    shared.openLocal = () => {
        if (!shared.isLocal) return Promise.resolve(null);
        opened ??= post('open', {}).then((answer) => (answer.key ? answer : null));
        return opened;
    };

    // An action of demo/local_files.py; like `shared.call`, it always answers.
    shared.local = async (action, values) => {
        const access = await shared.openLocal();
        return access ? post(`${access.key}/${action}`, values) : { message: t('files_only_here') };
    };

    shared.localAddress = async (path) => {
        const access = await shared.openLocal();
        return access ? new URL(`local/${access.key}/${path}`, document.baseURI).href : '';
    };

    // A button above the results, whatever made them.
    shared.resultButton = (name, label) => {
        const heading = document.querySelector('#results .heading');
        if (!heading || heading.querySelector(`.${name}`)) return heading?.querySelector(`.${name}`);
        let tools = heading.querySelector('.downloads');
        if (!tools) {
            tools = document.createElement('span');
            tools.className = 'downloads';
            heading.append(tools);
        }
        const button = document.createElement('button');
        [button.type, button.className, button.textContent] = ['button', name, label];
        tools.prepend(button);
        return button;
    };

    shared.download = (address, name = '') => {
        const link = document.createElement('a');
        [link.href, link.download] = [address, name];
        link.click();
    };
})();
