import type { BuildOptions, Plugin } from 'esbuild';

export const BUNDLING: BuildOptions & Required<Pick<BuildOptions, 'external' | 'plugins'>>;

export const OWN_PLACES: Plugin;
