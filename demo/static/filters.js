// The filters of the form: their values, how many are set, and which of `galleryFilters` the open gallery offers.
function filterPanel(element, fields, names, galleryFilters, t) {
    const panel = element.querySelector('.filters');
    const toggle = element.querySelector('.toggle');

    const valueOf = (field) => (field.type === 'checkbox' ? (field.checked ? field.value : '') : field.value.trim());
    const setValue = (field, value = '') => {
        const isUnknown = field.tagName === 'SELECT' && ![...field.options].some((option) => option.value === value);
        if (isUnknown) field.add(new Option(value, value));  // an address may ask for what the gallery does not have
        if (field.type === 'checkbox') field.checked = Boolean(value);
        else field.value = value;
    };
    const show = (open) => {
        panel.hidden = !open;
        toggle.setAttribute('aria-expanded', String(open));
    };
    const values = () => Object.fromEntries(names.map((name) => [name, valueOf(fields[name])]));
    const count = () => {
        const number = Object.values(values()).filter(Boolean).length;
        toggle.textContent = number ? t('filters_set', { number }) : t('filters');
        return number;
    };

    toggle.addEventListener('click', () => show(panel.hidden));
    return {
        values,
        count,
        fill(wanted) {
            for (const name of names) setValue(fields[name], wanted[name]);
            if (count()) show(true);
        },
        // `offered`: the filters of a gallery by name, with the values and labels to choose from.
        offer(offered) {
            for (const name of names) {
                const own = offered[name];
                const label = fields[name].closest('label');
                label.hidden = !own && galleryFilters.includes(name);
                if (!own?.length) continue;
                const chosen = fields[name].value;
                fields[name].replaceChildren(fields[name].options[0], ...own.map(([value, text]) => new Option(text, value)));
                setValue(fields[name], chosen);
            }
        },
    };
}
