import { type Span, isSpanWithin } from './mvcc.js';
import { ETCD_ERRORS } from './protocol.js';

/** Keys that a user may read or write. */
export interface Permission {
  readonly type: 'read' | 'write' | 'readwrite';
  readonly key: string;
  /** As etcd has it: undefined for one key, `\0` for all from `key` on. */
  readonly rangeEnd?: string;
}

/** A user; root may do everything. */
export interface SimUser {
  readonly password: string;
  readonly permissions: readonly Permission[] | 'root';
}

/** Users by name. */
export type AuthOptions = Readonly<Record<string, SimUser>>;

/** Who may do everything without being a user: the test itself. */
export const OPERATOR = '\0operator';

/** etcd's users and what each may do. */
export class Access {
  constructor(readonly options: AuthOptions) {}

  /** @throws {@link RpcError} if that is not the user's password. */
  logIn(name: string, password: string): void {
    if (this.options[name]?.password !== password) throw ETCD_ERRORS.authFailed();
  }

  may(user: string, operation: 'read' | 'write', span: Span): boolean {
    const permissions = this.options[user]?.permissions ?? [];
    if (permissions === 'root') return true;
    return permissions.some(
      ({ type, key, rangeEnd }) =>
        (type === 'readwrite' || type === operation) &&
        isSpanWithin(span, {
          from: key,
          to: rangeEnd === undefined ? `${key}\0` : rangeEnd === '\0' ? undefined : rangeEnd,
        }),
    );
  }

  /** @throws {@link RpcError} */
  assertMay(user: string | undefined, operation: 'read' | 'write', span: Span): void {
    if (user === undefined) throw ETCD_ERRORS.userEmpty();
    if (user !== OPERATOR && !this.may(user, operation, span)) throw ETCD_ERRORS.permissionDenied();
  }
}
