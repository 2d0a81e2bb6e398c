// Runs before anything is painted or loaded. The colours somebody chose, where they differ from the system's:
try {
  const chosen = localStorage.getItem("edge-hub-theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
} catch { /* no storage: the system's colours */ }
// And the first questions, so that the hub answers them while the modules load; `api.js` takes the answers from here.
if (document.cookie.includes("edge-hub-csrf=")) {
  const ask = (path) => fetch(`/api/v1${path}`, { headers: { Accept: "application/json" }, credentials: "same-origin", cache: "no-store" });
  window.edgeHubFirst = { "/session": ask("/session"), ...(location.hash.includes("?q=") ? {} : { "/rows": ask("/rows") }) };
  for (const answer of Object.values(window.edgeHubFirst)) answer.catch(() => {}); // told where it is taken
}
