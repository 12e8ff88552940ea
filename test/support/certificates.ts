import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';

/** What a certificate is made for. */
export interface CertificateRequest {
  /** Addresses and names it is valid for. Default 127.0.0.1 and localhost. */
  readonly names?: readonly string[];
  /** −1 makes one that has expired already. Default 2. */
  readonly days?: number;
}

/** A certificate and its key, as files. */
export interface Certificate {
  readonly certFile: string;
  readonly keyFile: string;
}

/** A certificate authority of a test, made by openssl in a directory of its own. */
export class CertificateAuthority {
  readonly caFile: string;

  constructor(private readonly directory: string) {
    mkdirSync(directory, { recursive: true });
    this.caFile = path.join(directory, 'ca.pem');
    const file = ['-keyout', 'ca.key', '-out', 'ca.pem'];
    // A name of its own: two authorities of the same name could be taken for each other while a chain is built.
    this.#openssl('req', '-x509', ...KEY, ...file, '-days', '2', '-subj', `/CN=test CA ${path.basename(directory)}`);
  }

  /** Issues a certificate for server and client; the same name again replaces the files of the former one. */
  issue(name: string, request: CertificateRequest = {}): Certificate {
    const { names = ['127.0.0.1', 'localhost'], days = 2 } = request;
    const alternatives = names.map((each) => `${/^[\d.]+$/.test(each) ? 'IP' : 'DNS'}:${each}`).join();
    const extensions = path.join(this.directory, `${name}.ext`);
    writeFileSync(extensions, `subjectAltName=${alternatives}\nextendedKeyUsage=serverAuth,clientAuth\n`);
    this.#openssl('req', ...KEY, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}`);
    this.#openssl(
      ...['x509', '-req', '-in', `${name}.csr`, '-out', `${name}.pem`, '-days', String(days)],
      ...['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-extfile', extensions],
    );
    const file = (suffix: string): string => path.join(this.directory, `${name}.${suffix}`);
    return { certFile: file('pem'), keyFile: file('key') };
  }

  #openssl(...args: readonly string[]): void {
    execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'pipe'], cwd: this.directory });
  }
}

const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'] as const;
