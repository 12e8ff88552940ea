// etcd's messages as they are after decoding: 64-bit numbers are decimal texts, enumerations are names.
// Answers are written with plain numbers, which the protocol encodes alike.

/** Of every answer; inner ones carry the revision only. */
export interface Header {
  readonly cluster_id?: string;
  readonly member_id?: string;
  readonly revision: number;
  readonly raft_term?: string;
}

/** What a request is about. */
export interface KeyRangeFields {
  readonly key: Buffer;
  readonly range_end: Buffer;
}

/** KV.Range. */
export interface RangeRequest extends KeyRangeFields {
  readonly limit: string;
  readonly revision: string;
  readonly sort_order: 'None' | 'Ascend' | 'Descend';
  readonly sort_target: 'Key' | 'Version' | 'Create' | 'Mod' | 'Value';
  readonly serializable: boolean;
  readonly keys_only: boolean;
  readonly count_only: boolean;
  readonly min_mod_revision: string;
  readonly max_mod_revision: string;
  readonly min_create_revision: string;
  readonly max_create_revision: string;
}

/** KV.Put. */
export interface PutRequest {
  readonly key: Buffer;
  readonly value: Buffer;
  readonly lease: string;
  readonly prev_kv: boolean;
  readonly ignore_value: boolean;
  readonly ignore_lease: boolean;
}

/** KV.DeleteRange. */
export interface DeleteRangeRequest extends KeyRangeFields {
  readonly prev_kv: boolean;
}

/** One condition of a transaction. */
export interface Compare extends KeyRangeFields {
  readonly result: 'Equal' | 'Greater' | 'Less' | 'NotEqual';
  readonly target: 'Version' | 'Create' | 'Mod' | 'Value' | 'Lease';
  readonly version?: string;
  readonly create_revision?: string;
  readonly mod_revision?: string;
  readonly value?: Buffer;
  readonly lease?: string;
}

/** One step of a transaction: one of the fields. */
export interface RequestOp {
  readonly request_range?: RangeRequest;
  readonly request_put?: PutRequest;
  readonly request_delete_range?: DeleteRangeRequest;
  readonly request_txn?: TxnRequest;
}

/** KV.Txn. */
export interface TxnRequest {
  readonly compare: readonly Compare[];
  readonly success: readonly RequestOp[];
  readonly failure: readonly RequestOp[];
}

/** Asks a stream for another watcher. */
export interface WatchCreateRequest extends KeyRangeFields {
  readonly start_revision: string;
  readonly progress_notify: boolean;
  readonly filters: readonly ('Noput' | 'Nodelete')[];
  readonly prev_kv: boolean;
  readonly watch_id: string;
}

/** What a client writes to a watch stream: one of the fields. */
export interface WatchRequest {
  readonly create_request?: WatchCreateRequest;
  readonly cancel_request?: { readonly watch_id: string };
  readonly progress_request?: object;
}

/** A key and its value as answers carry them. */
export interface KeyValueMessage {
  readonly key: Buffer;
  readonly create_revision?: number;
  readonly mod_revision: number;
  readonly version?: number;
  readonly value?: Buffer;
  readonly lease?: string;
}

/** One change as watches report it. */
export interface EventMessage {
  readonly type: 'Put' | 'Delete';
  readonly kv: KeyValueMessage;
  readonly prev_kv?: KeyValueMessage | undefined;
}

/** Answer to KV.Range. */
export interface RangeResponse {
  readonly header: Header;
  readonly kvs: readonly KeyValueMessage[];
  readonly more: boolean;
  readonly count: number;
}

/** Answer to KV.Txn. */
export interface TxnResponse {
  readonly header: Header;
  readonly succeeded: boolean;
  readonly responses: readonly object[];
}
