/** The order of our templates where ComfyUI offers them: it lists a pack's files as the disk happens to give them. */

/**
 * @param {{getWorkflowTemplates?: () => Promise<Record<string, string[]>>}} api the frontend's
 * @param {string} known one of ours, by which our pack is known whatever its folder is called
 */
export function sortTemplates(api, known) {
  const listed = api.getWorkflowTemplates?.bind(api);
  if (!listed) return;
  api.getWorkflowTemplates = async () => {
    const packs = await listed();
    for (const names of Object.values(packs)) if (names.includes(known)) names.sort();
    return packs;
  };
}
