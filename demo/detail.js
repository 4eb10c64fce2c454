// The large view is a modal <dialog>: the browser itself keeps the focus inside, closes on Esc and dims the page.
// It stands beside the component, whose own content Gradio rewrites.
const dialog = document.createElement('dialog');
dialog.id = 'detail-dialog';
dialog.setAttribute('aria-labelledby', 'detail-title');
element.parentElement.append(dialog);

watch('value', () => {
    dialog.innerHTML = props.value || '';
    if (props.value && !dialog.open) dialog.showModal();
});

dialog.addEventListener('click', (event) => {
    if (event.target === dialog) dialog.close();  // the dimmed page around it
    const button = event.target.closest('[data-action]');
    if (!button) return;
    const place = { row: Number(button.dataset.row), score: Number(button.dataset.score) };
    if (button.dataset.action === 'find_captions') {
        button.disabled = true;
        button.textContent = 'Looking…';
        trigger('find_captions', place);
        return;
    }
    dialog.close();
    if (button.dataset.action === 'more_like') trigger('more_like', place);
});
