const page = window.miniclip;
const form = element.querySelector('form');
const compared = element.querySelector('.compared');
let newest = 0;

form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const { q, first, second } = form.elements;
    const number = ++newest;
    compared.setAttribute('aria-busy', 'true');
    const answer = await page.call(server.both, { q: q.value, first: first.value, second: second.value });
    if (number !== newest) return;
    compared.removeAttribute('aria-busy');
    compared.innerHTML = answer.html ?? page.message(answer.message);
});

(async () => {
    const { choices = [], open, message } = await page.call(server.models);
    for (const select of [form.elements.first, form.elements.second]) {
        select.replaceChildren(...choices.map((name) => new Option(name, name)));
    }
    form.elements.first.value = open;
    form.elements.second.value = choices.find((name) => name !== open) ?? open;
    form.elements.q.value = page.question.q ?? '';
    if (message) compared.innerHTML = page.message(message);
    else if (choices.length < 2) compared.innerHTML = page.message('There is only one model here: python -m export --precision fp32 int8 makes more.');
})();
