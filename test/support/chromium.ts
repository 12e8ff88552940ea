import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { waitFor } from './wait.js';

const PROGRAM = '/usr/bin/chromium';

const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--hide-scrollbars',
  '--remote-debugging-pipe',
];

interface Message {
  readonly id?: number;
  readonly method?: string;
  readonly params?: Readonly<Record<string, unknown>>;
  readonly result?: Readonly<Record<string, unknown>>;
  readonly error?: { readonly message: string };
}

/** Whether Debian's chromium is installed. */
export function hasChromium(): boolean {
  return existsSync(PROGRAM);
}

/** One page in a headless Chromium with a profile of its own, driven through the DevTools protocol on a pipe. */
export class ChromiumPage {
  /** What the page complained about: exceptions, console errors, requests and styles that the policy forbade. */
  readonly complaints: string[] = [];
  readonly #child: ChildProcess;
  readonly #profile: string;
  readonly #pending = new Map<number, (message: Message) => void>();
  #lastId = 0;
  #sessionId: string | undefined;
  #buffer = '';

  private constructor() {
    this.#profile = mkdtempSync(path.join(os.tmpdir(), 'tsflannel-chromium-'));
    this.#child = spawn(PROGRAM, [...FLAGS, `--user-data-dir=${this.#profile}`, 'about:blank'], {
      stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
    });
    const output = this.#child.stdio[4] as Readable;
    output.setEncoding('utf8').on('data', (chunk: string) => {
      const messages = (this.#buffer + chunk).split('\0');
      this.#buffer = messages.pop() ?? '';
      for (const message of messages) this.#take(JSON.parse(message) as Message);
    });
    this.#child.once('exit', () => {
      for (const settle of this.#pending.values()) settle({ error: { message: 'chromium ended' } });
    });
  }

  /** Opens an address at a given size of the window, in CSS pixels. */
  static async open(url: string, size: { readonly width: number; readonly height: number }): Promise<ChromiumPage> {
    const page = new ChromiumPage();
    try {
      const { targetId } = await page.#call('Target.createTarget', { url: 'about:blank' });
      const { sessionId } = await page.#call('Target.attachToTarget', { targetId, flatten: true });
      page.#sessionId = String(sessionId);
      for (const domain of ['Page', 'Runtime', 'Log']) await page.#call(`${domain}.enable`);
      await page.resize(size);
      await page.#call('Page.navigate', { url });
      return page;
    } catch (error) {
      await page.close();
      throw error;
    }
  }

  /** Value of a JavaScript expression in the page; it must be plain data. */
  async evaluate(expression: string): Promise<unknown> {
    const { result, exceptionDetails } = await this.#call('Runtime.evaluate', { expression, returnByValue: true });
    if (exceptionDetails !== undefined) throw new Error(`${expression}: ${JSON.stringify(exceptionDetails)}`);
    return (result as { readonly value?: unknown }).value;
  }

  /** Waits until an expression is true in the page. */
  async waitUntil(expression: string, timeoutMs = 20_000): Promise<void> {
    await waitFor(async () => (await this.evaluate(expression)) === true, { what: expression, timeoutMs });
  }

  /** As somebody with a light or a dark desktop sees it. */
  async emulate(scheme: 'light' | 'dark'): Promise<void> {
    await this.#call('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] });
  }

  async resize({ width, height }: { readonly width: number; readonly height: number }): Promise<void> {
    await this.#call('Emulation.setDeviceMetricsOverride', {
      width,
      height,
      deviceScaleFactor: 1,
      mobile: width < 600,
    });
  }

  /** The whole page as PNG. */
  async screenshot(): Promise<Buffer> {
    const { data } = await this.#call('Page.captureScreenshot', { format: 'png', captureBeyondViewport: true });
    return Buffer.from(String(data), 'base64');
  }

  async close(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const exit = once(this.#child, 'exit');
      const timer = setTimeout(() => this.#child.kill('SIGKILL'), 5000);
      this.#sessionId = undefined;
      await this.#call('Browser.close').catch(() => this.#child.kill('SIGKILL'));
      await exit;
      clearTimeout(timer);
    }
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 5 });
  }

  async #call(method: string, params: object = {}): Promise<Readonly<Record<string, unknown>>> {
    const id = ++this.#lastId;
    const session = this.#sessionId === undefined ? {} : { sessionId: this.#sessionId };
    const answer = await new Promise<Message>((resolve) => {
      this.#pending.set(id, resolve);
      (this.#child.stdio[3] as Writable).write(`${JSON.stringify({ id, method, params, ...session })}\0`);
    });
    this.#pending.delete(id);
    if (answer.error !== undefined) throw new Error(`${method}: ${answer.error.message}`);
    return answer.result ?? {};
  }

  #take(message: Message): void {
    if (message.id !== undefined) {
      this.#pending.get(message.id)?.(message);
      return;
    }
    const { method, params = {} } = message;
    const isError =
      method === 'Runtime.exceptionThrown' ||
      (method === 'Runtime.consoleAPICalled' && ['error', 'warning', 'assert'].includes(String(params.type))) ||
      (method === 'Log.entryAdded' && (params.entry as { readonly level: string }).level === 'error');
    if (isError) this.complaints.push(JSON.stringify(params));
  }
}
