import type { BuildOptions } from 'esbuild';

export const BUNDLING: BuildOptions & Required<Pick<BuildOptions, 'external' | 'plugins'>>;
