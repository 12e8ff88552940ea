export const FILES_OF_BUNDLES: readonly string[];
