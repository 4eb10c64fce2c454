// One listener on the gallery: the cards below it are replaced with every answer.
element.addEventListener('click', (event) => {
    const card = event.target.closest('[data-row]');
    if (card) trigger('select', { row: Number(card.dataset.row), score: Number(card.dataset.score) });
});
