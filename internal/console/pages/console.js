// Adds to the pages what HTML cannot do: the time that is left, and buttons that copy. Without
// it the pages work all the same.
"use strict";

for (const place of document.querySelectorAll("[data-until]")) {
	const end = Date.parse(place.dataset.until);
	const show = () => {
		const left = Math.max(0, Math.floor((end - Date.now()) / 1000));
		place.textContent = left > 0
			? Math.floor(left / 60) + " min " + String(left % 60).padStart(2, "0") + " s left"
			: "It has expired: ask for another one.";
		if (left > 0) {
			setTimeout(show, 1000);
		} else {
			place.classList.add("over");
		}
	};
	show();
}

if (navigator.clipboard) {
	for (const button of document.querySelectorAll("button[data-copy]")) {
		button.hidden = false;
		button.addEventListener("click", async () => {
			const name = button.firstChild;
			try {
				await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
				name.nodeValue = "Copied";
			} catch {
				name.nodeValue = "Not copied";
			}
			setTimeout(() => { name.nodeValue = "Copy"; }, 3000);
		});
	}
}
