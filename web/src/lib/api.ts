/** The API's client: types from its own document, errors as one class. */
import createClient, { type Middleware } from 'openapi-fetch';
import type { paths } from './schema';
import type { Problem } from './words';

const LIMIT_MILLIS = 30_000;

export class ApiProblem extends Error {
  constructor(readonly problem: Problem) {
    super(problem.message);
  }
}

function unreachable(cause: unknown): Problem {
  const late = cause instanceof DOMException && cause.name === 'TimeoutError';
  return {
    type: 'urn:lifeboat:problem:Unreachable', title: 'Unreachable', status: 0, code: 'Unreachable',
    message: late ? 'The server did not answer in time.' : 'The server cannot be reached.',
    possibleCauses: 'It is stopped or restarting, or the network between this browser and it is cut.',
    recommendedAction: 'Wait a moment and try again. On the server: systemctl status lifeboat-server.',
    requestId: '',
  };
}

let onLoggedOut: () => void = () => {};
export function whenLoggedOut(action: () => void) {
  onLoggedOut = action;
}

const own: Middleware = {
  onRequest({ request }) {
    // Foreign pages cannot send it: the server asks for it besides the cookie.
    request.headers.set('x-lifeboat-request', '1');
    return request;
  },
  onResponse({ response, request }) {
    if (response.status === 401 && !request.url.endsWith('/api/v1/login')) onLoggedOut();
  },
};

export const api = createClient<paths>({
  baseUrl: location.origin,
  fetch: (request) => fetch(request, { signal: AbortSignal.timeout(LIMIT_MILLIS) }),
});
api.use(own);

/** The answer's data, or an ApiProblem. */
export async function ok<T>(call: Promise<{ data?: T; error?: unknown; response: Response }>): Promise<T> {
  let answer: { data?: T; error?: unknown; response: Response };
  try {
    answer = await call;
  } catch (cause) {
    throw new ApiProblem(unreachable(cause));
  }
  if (answer.response.ok) return answer.data as T;
  const problem = answer.error as Partial<Problem> | undefined;
  throw new ApiProblem({
    type: 'about:blank', title: answer.response.statusText, status: answer.response.status, code: `Http${answer.response.status}`,
    message: `The server answered ${answer.response.status}.`, possibleCauses: '', recommendedAction: 'Try again.',
    requestId: answer.response.headers.get('x-request-id') ?? '',
    ...(typeof problem === 'object' ? problem : {}),
  });
}

export function problemOf(error: unknown): Problem {
  if (error instanceof ApiProblem) return error.problem;
  return {
    type: 'about:blank', title: 'Error', status: 0, code: 'PageError', message: String(error),
    possibleCauses: 'A defect of this page.', recommendedAction: 'Load the page anew.', requestId: '',
  };
}
