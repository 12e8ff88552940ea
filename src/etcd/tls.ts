import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createSecureContext, rootCertificates } from 'node:tls';
import { OverlayError } from '../errors.js';

/** The files an operator may name; an empty name counts as none. */
export interface TlsFiles {
  readonly caFile?: string | undefined;
  readonly certFile?: string | undefined;
  readonly keyFile?: string | undefined;
}

/** What a TLS connection is made with. */
export interface TlsMaterial {
  readonly rootCertificate: Buffer;
  readonly privateKey?: Buffer;
  readonly certChain?: Buffer;
}

/** Where Go looks for the system's roots on Linux, in its order, so that a host's own CA works as with flannel. */
const SYSTEM_ROOTS = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/pki/tls/cacert.pem',
  '/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem',
  '/etc/ssl/cert.pem',
];

/** Whether any file is named. */
export function hasTlsFiles(files: TlsFiles): boolean {
  return [files.caFile, files.certFile, files.keyFile].some((file) => file !== undefined && file !== '');
}

/**
 * Reads and checks the files. Without a CA file the system's roots count; a certificate without its key, or a key
 * without its certificate, is left out, as flannel does.
 *
 * @throws {@link OverlayError} `ERR_TLS_FILE` with the name of the file.
 */
export function loadTlsMaterial(files: TlsFiles): TlsMaterial {
  const ca = readNamed(files.caFile, 'CA file', '--etcd-cafile', (pem) => new X509Certificate(pem));
  const cert = readNamed(files.certFile, 'certificate', '--etcd-certfile', (pem) => new X509Certificate(pem));
  const key = readNamed(files.keyFile, 'key', '--etcd-keyfile', (pem) => createPrivateKey(pem));
  const rootCertificate = ca ?? readSystemRoots();
  if (cert === undefined || key === undefined) return { rootCertificate };
  try {
    createSecureContext({ cert, key });
  } catch (cause) {
    throw tlsError(
      files.keyFile ?? '',
      `use the key ${files.keyFile ?? ''} with ${files.certFile ?? ''}`,
      cause,
      '--etcd-keyfile',
    );
  }
  return { rootCertificate, certChain: cert, privateKey: key };
}

function readNamed(
  file: string | undefined,
  what: string,
  flag: string,
  check: (pem: Buffer) => unknown,
): Buffer | undefined {
  if (file === undefined || file === '') return undefined;
  try {
    const pem = readFileSync(file);
    check(pem);
    return pem;
  } catch (cause) {
    throw tlsError(file, `read the ${what} ${file}`, cause, flag);
  }
}

function readSystemRoots(): Buffer {
  for (const file of [process.env['SSL_CERT_FILE'] ?? '', ...SYSTEM_ROOTS]) {
    try {
      if (file !== '') return readFileSync(file);
    } catch {
      // Every distribution has one of these at most; the built-in roots stand in where there is none.
    }
  }
  return Buffer.from(rootCertificates.join('\n'));
}

function tlsError(file: string, what: string, cause: unknown, flag: string): OverlayError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new OverlayError('ERR_TLS_FILE', `cannot ${what} for etcd: ${reason}`, {
    cause,
    context: { file },
    hint: `give ${flag} a PEM file that this user can read`,
  });
}
