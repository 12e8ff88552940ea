import type { Clock } from '../clock.js';
import { OverlayError } from '../errors.js';
import { WireguardSecret, type WireguardPublicKey } from '../ip/wireguard-key.js';
import type { Logger } from '../log.js';
import { errnoOf } from '../sys/errno.js';
import type { SecretFiles } from '../sys/secret-file.js';

/** How often the file is looked at: it is to be exchangeable without a restart. */
const CHECK_MS = 30_000;

/** What is told of the key. */
export interface PrivateKeyStatus {
  readonly file: string;
  readonly publicKey: WireguardPublicKey;
  /** Whether users besides its owner can read the file. */
  readonly isOpen: boolean;
}

/** How a {@link PrivateKeyFile} is made. */
export interface PrivateKeyOptions {
  readonly file: string;
  readonly files: SecretFiles;
  readonly clock: Clock;
  readonly log: Logger;
  /** Called when the key is another one. */
  readonly onChange: () => void;
}

/**
 * The private key by which peers know this host, in a file as flannel has it: 32 bytes in base64.
 *
 * API: {@link load} reads the file, and makes it if there is none. From then on it is looked at again now and then.
 * Errors: `ERR_PRIVATE_KEY`. A file that holds something else is never written over. With a key at hand, one that is
 * spoilt or gone only gives a line of the log, and the key stays in use.
 */
export class PrivateKeyFile {
  private key: WireguardSecret | undefined;
  private isOpen = false;
  private told: string | undefined;
  private cancelTimer: (() => void) | undefined;
  private isClosed = false;

  constructor(private readonly options: PrivateKeyOptions) {}

  /** Undefined before a key was needed. */
  get status(): PrivateKeyStatus | undefined {
    const { isOpen, key } = this;
    return key && { file: this.options.file, publicKey: key.publicKey, isOpen };
  }

  /**
   * The key in use; a later call gives it at once.
   *
   * @throws {@link OverlayError} `ERR_PRIVATE_KEY`
   */
  async load(): Promise<WireguardSecret> {
    if (this.key !== undefined) return this.key;
    const key = (await this.read()) ?? (await this.make());
    this.key = key;
    this.checkLater();
    return key;
  }

  close(): void {
    this.isClosed = true;
    this.cancelTimer?.();
  }

  private checkLater(): void {
    if (this.isClosed) return;
    this.cancelTimer = this.options.clock.after(CHECK_MS, () => {
      void this.check().finally(() => this.checkLater());
    });
  }

  private async check(): Promise<void> {
    const { file, log, onChange } = this.options;
    try {
      const key = await this.read();
      if (key === undefined) {
        this.tellOnce('the file with the private key is gone, going on with the key that was in it', {});
      } else if (key.equals(this.key)) {
        this.told = undefined;
      } else {
        this.key = key;
        this.told = undefined;
        log.info('private key was exchanged', { file, key: key.publicKey });
        onChange();
      }
    } catch (error) {
      this.tellOnce('private key cannot be read, going on with the last one', { error });
    }
  }

  private tellOnce(message: string, fields: { readonly error?: unknown }): void {
    if (this.told === message) return;
    this.told = message;
    this.options.log.warn(message, { file: this.options.file, ...fields });
  }

  /** Undefined if there is no file. */
  private async read(): Promise<WireguardSecret | undefined> {
    const { file, files, log } = this.options;
    let found;
    try {
      found = await files.read(file);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw unusable(file, `cannot read ${file}: ${errnoOf(error) ?? String(error)}`, error);
    }
    if (found.isOpen && !this.isOpen) {
      log.warn('others can read the private key of this host', { file, hint: `chmod 600 ${file}` });
    }
    this.isOpen = found.isOpen;
    const key = WireguardSecret.parse(found.text.trim());
    if (key === undefined)
      throw unusable(file, `cannot use ${file}: it does not hold a private key, 32 bytes in base64`);
    return key;
  }

  private async make(): Promise<WireguardSecret> {
    const { file, files, log } = this.options;
    const key = WireguardSecret.generate();
    let isMade;
    try {
      isMade = await files.create(file, `${key.toBase64()}\n`);
    } catch (error) {
      throw unusable(file, `cannot make ${file}: ${errnoOf(error) ?? String(error)}`, error);
    }
    if (isMade) {
      log.info('private key made', { file, key: key.publicKey });
      return key;
    }
    const others = await this.read(); // somebody was faster
    if (others === undefined) throw unusable(file, `cannot use ${file}: it comes and goes`);
    return others;
  }
}

function unusable(file: string, message: string, cause?: unknown): OverlayError {
  return new OverlayError('ERR_PRIVATE_KEY', message, {
    cause,
    context: { file },
    hint: `put a key there that only root can read (umask 077; wg genkey >${file}), or move the file away to have one made`,
    isRetryable: true,
  });
}
