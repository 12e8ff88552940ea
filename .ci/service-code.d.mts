export function serviceCode(proto: string, services: readonly string[]): string;
