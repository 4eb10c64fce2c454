// All images by date, under month headings. The document holds only the images near the screen, so that a gallery of
// any size scrolls smoothly; titles and previews of other images are loaded when the user scrolls near them.
function makeTimeline(results, page, server) {
    const GAP_PX = 4, HEADING_PX = 46, CHUNK = 200;
    const MIN_CELL_PX = { phone: 108, desktop: 156 };
    const AHEAD_SCREENS = 0.75;  // drawn in advance, above and below the screen
    const FAST_PX_PER_MS = 2, SETTLED_MS = 80;  // nothing is loaded while scrolling faster than this
    const RETRY_MS = 2000;  // until a request that failed is sent again
    let list = null, months = [], query = {}, gallery = '';
    let columns = 1, cell = 0;
    let cards = [];  // by place: [row, title, preview, whether the file exists, the second if it is a moment in a video]
    let chunks = new Set();  // numbers of the chunks that were requested
    let sections = new Map(), items = new Map();  // elements in the document: sections by month, items by place
    let frame = 0, settled = 0, retry = 0, last = { top: 0, at: 0 }, drawnAt = NaN;  // drawnAt: `top` at the last full drawing

    function layOut() {
        const width = list.clientWidth;
        if (!width) return false;  // the list is hidden: another tab is open
        const least = width < 600 ? MIN_CELL_PX.phone : MIN_CELL_PX.desktop;
        columns = Math.max(2, Math.floor((width + GAP_PX) / (least + GAP_PX)));
        cell = (width - GAP_PX * (columns - 1)) / columns;
        let top = 0;
        for (const month of months) {
            month.top = top;
            month.height = HEADING_PX + Math.ceil(month.count / columns) * (cell + GAP_PX);
            top += month.height;
        }
        list.style.height = `${top}px`;
        for (const [number, section] of sections) placeSection(section, months[number]);
        for (const [place, item] of items) placeItem(item, place - months[monthOf(place)].start);
        return true;
    }

    function placeSection(section, month) {
        section.style.transform = `translateY(${month.top}px)`;
        section.style.height = `${month.height}px`;
    }

    function placeItem(item, offset) {
        const [x, y] = [offset % columns, Math.floor(offset / columns)].map((steps) => steps * (cell + GAP_PX));
        item.style.cssText = `left:${x}px;top:${y}px;width:${cell}px;height:${cell}px`;
    }

    // Binary search for the last month that begins at or before a height in the list ('top') or a place ('start').
    function monthAt(measure, value) {
        let [low, high] = [0, months.length - 1];
        while (low < high) {
            const middle = (low + high + 1) >> 1;
            if (months[middle][measure] <= value) low = middle;
            else high = middle - 1;
        }
        return low;
    }
    const monthOf = (place) => monthAt('start', place);

    const topOf = (place) => {
        const month = months[monthOf(place)];
        return month.top + HEADING_PX + Math.floor((place - month.start) / columns) * (cell + GAP_PX);
    };

    function addSection(number) {
        const month = months[number];
        const ariaLabel = page.t('month_images', { month: month.name, count: month.count });
        const section = page.make('section', { ariaLabel }, page.make('h3', {}, month.name), page.make('ul'));
        const after = [...sections.keys()].filter((other) => other > number).sort((a, b) => a - b)[0];
        placeSection(section, month);
        list.insertBefore(section, sections.get(after) ?? null);
        sections.set(number, section);
        return section;
    }

    function addItem(place, month, section) {
        const item = page.make('li', { dataset: { place }, ariaSetSize: month.count, ariaPosInSet: place - month.start + 1 });
        const own = section.lastElementChild;
        placeItem(item, place - month.start);
        const isLast = !own.lastElementChild || Number(own.lastElementChild.dataset.place) < place;
        const next = isLast ? null : [...own.children].find((other) => Number(other.dataset.place) > place);
        own.insertBefore(item, next ?? null);
        items.set(place, item);
        return item;
    }

    // Puts the image's card into its item, if it is loaded and the item is empty. Returns whether it did.
    function fillItem(item, place) {
        const card = cards[place];
        if (!card || item.firstChild) return false;
        const [row, title, preview, isThere, second] = card;
        const image = page.make('img', { alt: '', decoding: 'async', src: preview });
        const name = page.make('span', { className: 'title' }, isThere ? title : page.t('gone', { title }));
        const dataset = { row, gallery, ...(second !== undefined && { second }) };
        const button = page.make('button', { type: 'button', className: 'card', title, dataset }, image, name);
        button.classList.toggle('gone', !isThere);
        item.append(button);
        return true;
    }

    // Put the images near the screen into the document, and remove the others.
    function draw() {
        if (!list?.isConnected || !list.clientWidth) return;
        const top = -list.getBoundingClientRect().top;
        const now = performance.now();
        const isFast = Math.abs(top - last.top) / Math.max(1, now - last.at) > FAST_PX_PER_MS;
        last = { top, at: now };
        drawnAt = isFast ? NaN : top;
        const ahead = innerHeight * (isFast ? 0 : AHEAD_SCREENS);
        const [from, to] = [top - ahead, top + innerHeight + ahead];
        const wanted = new Set(), wantedMonths = new Set();
        let isFilled = false;
        for (let number = monthAt('top', from); number < months.length && months[number].top < to; number++) {
            const month = months[number];
            const section = sections.get(number) ?? addSection(number);
            wantedMonths.add(number);
            const inside = (y) => Math.floor((y - month.top - HEADING_PX) / (cell + GAP_PX));
            const first = month.start + Math.max(0, inside(from)) * columns;
            const end = Math.min(month.start + month.count, month.start + Math.max(0, inside(to) + 1) * columns);
            for (let place = first; place < end; place++) {
                wanted.add(place);
                const item = items.get(place) ?? addItem(place, month, section);
                if (!isFast) isFilled = fillItem(item, place) || isFilled;
            }
        }
        if (isFilled) page.send('cards');
        const keeps = (node) => node.contains(document.activeElement);  // never remove the focused element
        for (const [place, item] of items) if (!wanted.has(place) && !keeps(item)) {
            item.remove();
            items.delete(place);
        }
        for (const [number, section] of sections) if (!wantedMonths.has(number) && !keeps(section)) {
            section.remove();
            sections.delete(number);
        }
        clearTimeout(settled);
        clearTimeout(retry);
        if (isFast) settled = setTimeout(draw, SETTLED_MS);
        else if (wanted.size) load(Math.min(...wanted), Math.max(...wanted));
    }

    async function load(first, end) {
        for (let number = Math.floor(first / CHUNK); number <= Math.floor(end / CHUNK); number++) {
            if (chunks.has(number)) continue;
            const mine = chunks;
            mine.add(number);
            const answer = await page.call(server.browse_cards, { ...query, gallery, start: number * CHUNK, count: CHUNK });
            if (mine !== chunks) return;  // another search has started in the meantime
            if (!answer.cards) {
                mine.delete(number);
                if (answer.gallery_changed) hide(page.message(answer));
                else retry = setTimeout(draw, RETRY_MS);
                return;
            }
            answer.cards.forEach((card, offset) => { cards[number * CHUNK + offset] = card; });
            for (const [place, item] of items) fillItem(item, place);
            page.send('cards');
        }
    }

    // Small steps need no drawing, because there are enough images above and below the screen.
    function drawIfFar() {
        frame = 0;
        if (list && !(Math.abs(-list.getBoundingClientRect().top - drawnAt) < cell / 2)) draw();
    }
    const schedule = () => { frame ||= requestAnimationFrame(drawIfFar); };
    const scrollToPlace = (place) => scrollTo({ top: scrollY + list.getBoundingClientRect().top + topOf(place) - HEADING_PX - 8 });

    function head(answer) {
        const bar = page.make('div', { className: 'heading' }, page.make('h2', {}, answer.heading));
        if (months.length > 1) {
            const options = months.map((month) => new Option(`${month.name} (${page.number(month.count)})`, month.start));
            const select = page.make('select', {}, ...options);
            select.addEventListener('change', () => scrollToPlace(Number(select.value)));
            bar.append(page.make('label', { className: 'jump' }, `${page.t('go_to')} `, select));
        }
        return bar;
    }

    function show(answer, newQuery) {
        const kept = list && JSON.stringify(query) === JSON.stringify(newQuery) ? scrollY : null;  // the same search again
        [gallery, query] = [answer.gallery, newQuery];
        let start = 0;
        months = answer.months.map(([name, count]) => ({ name, count, start: (start += count) - count }));
        [cards, chunks, sections, items] = [[], new Set(), new Map(), new Map()];
        list = page.make('div', { className: 'timeline' });
        results.setAttribute('aria-live', 'off');  // screen readers should not announce what scrolls in
        results.replaceChildren(head(answer), list);
        resized.disconnect();
        resized.observe(list);
        if (!layOut()) return;
        if (kept !== null) scrollTo({ top: kept });
        draw();
    }

    function hide(html) {
        resized.disconnect();
        list = null;
        months = [];
        results.setAttribute('aria-live', 'polite');
        results.innerHTML = html;
    }

    let width = 0;
    const resized = new ResizeObserver(() => {
        if (!list || list.clientWidth === width) return;
        width = list.clientWidth;
        const top = -list.getBoundingClientRect().top;
        const shown = cell && top > 0 ? [...items.keys()].sort((a, b) => a - b).find((place) => topOf(place) >= top) : undefined;
        if (!layOut()) return;
        if (shown !== undefined) scrollToPlace(shown);
        draw();
    });
    addEventListener('scroll', schedule, { passive: true });
    addEventListener('resize', () => {
        drawnAt = NaN;
        schedule();
    });

    // The large view shows this card: scroll to it, so that its neighbours are in the document.
    page.on('turned', (card) => {
        const item = card.closest('.timeline li');
        if (!item || !list) return;
        item.scrollIntoView({ block: 'nearest' });
        draw();
    });

    return { show, hide };
}
