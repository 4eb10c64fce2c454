// The same words with two models. The second list leaves out the model that the first one shows.
const page = window.miniclip;
const form = element.querySelector('form');
const compared = element.querySelector('.compared');
const { q, first, second } = form.elements;
let choices = [];
let newest = 0;

function offerSecond() {
    const before = second.value;
    const others = choices.filter((name) => name !== first.value);
    second.replaceChildren(...others.map((name) => new Option(name, name)));
    if (others.includes(before)) second.value = before;
}

async function offer() {
    const answer = await page.call(server.models);
    choices = answer.choices ?? [];
    first.replaceChildren(...choices.map((name) => new Option(name, name)));
    first.value = answer.open ?? '';
    offerSecond();
    q.value ||= page.question.q ?? '';
    form.querySelector('button').disabled = choices.length < 2;
    const message = answer.message || answer.hint;
    if (message) compared.innerHTML = page.message({ message });
}

first.addEventListener('change', offerSecond);
form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const number = ++newest;
    compared.setAttribute('aria-busy', 'true');
    const answer = await page.call(server.both, { q: q.value, first: first.value, second: second.value });
    if (number !== newest) return;
    compared.removeAttribute('aria-busy');
    compared.innerHTML = answer.html ?? page.message(answer);
});
page.hear('gallery', () => {
    newest += 1;
    compared.innerHTML = '';
    offer();
});
offer();
