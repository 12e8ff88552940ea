import type { Request } from './request.js';

/** What a method knows of the call besides its request. */
export interface Call {
  /** Aborted when the answer has been given up: what comes out then must be undone. */
  readonly signal: AbortSignal;
}

/** Answers one method; what it throws becomes the error that Docker shows. */
export type Method = (request: Request, call: Call) => Promise<object> | object;

/** Methods by their name after the interface's, such as `RequestPool`. */
export type Methods = Readonly<Record<string, Method>>;

/** One of the interfaces of Docker's plugin protocol. */
export interface PluginInterface {
  /** `NetworkDriver` or `IpamDriver`. */
  readonly name: string;
  /** Field of the answer that carries an error: Docker looks nowhere else. */
  readonly errorField: 'Err' | 'Error';
  readonly methods: Methods;
}
