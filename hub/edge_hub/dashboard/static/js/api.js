// The hub's API as this page uses it: who is signed in, requests with the CSRF header, errors as one kind of value.
import { computed, signal } from "./bound.js";

const PATH = "/api/v1";
const CSRF_COOKIES = ["__Host-edge-hub-csrf", "edge-hub-csrf"]; // the hub's own TLS, else
const PATIENCE_MS = 20_000;
const RANK = { viewer: 0, operator: 1, admin: 2 };

// undefined: not known yet; null: nobody; else {name, role}.
export const session = signal(undefined);
export const mayOperate = computed(() => (RANK[session.value?.role] ?? -1) >= RANK.operator);
export const mayAdminister = computed(() => (RANK[session.value?.role] ?? -1) >= RANK.admin);

class ApiError extends Error {
  constructor(status, code, text) {
    super(text);
    this.status = status;
    this.code = code;
  }
}

export async function ask(method, path, body) {
  const headers = { Accept: "application/json" };
  if (method !== "GET") headers["X-Edge-CSRF"] = csrf();
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const limit = AbortSignal.timeout(PATIENCE_MS);
  let answer;
  const early = method === "GET" && window.edgeHubFirst?.[path];
  if (early) delete window.edgeHubFirst[path];
  try {
    answer = await (early || fetch(PATH + path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      cache: "no-store",
      signal: limit,
    }));
  } catch {
    throw new ApiError(0, "unreachable", limit.aborted
      ? `The hub did not answer within ${PATIENCE_MS / 1000} s. Is it overloaded? 'edge hub run --log debug' says more.`
      : "The hub does not answer. Does 'edge hub run' still run, and does this machine reach it?");
  }
  const text = await answer.text();
  const found = text ? parsed(text) : null;
  if (answer.ok) return found;
  if (answer.status === 401 && session.value) session.value = null;
  throw new ApiError(answer.status, found?.code ?? "http", found?.text ?? found?.trouble ?? `The hub answered with status ${answer.status}.`);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

export const get = (path) => ask("GET", path);

export async function signIn(token) {
  session.value = await ask("POST", "/session", { token });
}

// The page first, so that nothing is asked any more when the cookie goes.
export async function signOut() {
  const who = session.value;
  session.value = null;
  try {
    await ask("DELETE", "/session");
  } catch (failed) {
    if (failed.status !== 401) session.value = who;
    throw failed;
  }
}

// Without the readable cookie there is no session, and asking would count as a wrong token.
export function mayBeSignedIn() {
  return csrf() !== "";
}

export async function whoAmI() {
  try {
    session.value = await get("/session");
  } catch (problem) {
    if (problem.status !== 401) throw problem;
    session.value = null;
  }
}

export function devicePath(device, rest = "") {
  const [tenant, name] = device.split("/", 2);
  return `/devices/${encodeURIComponent(tenant)}/${encodeURIComponent(name ?? "")}${rest}`;
}

function csrf() {
  return CSRF_COOKIES.map(cookie).find(Boolean) ?? "";
}

function cookie(name) {
  const found = document.cookie.split("; ").find((part) => part.startsWith(`${name}=`));
  return found ? found.slice(name.length + 1) : "";
}
