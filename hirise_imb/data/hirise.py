"""The HiRISE labelled landmarks, version 3.2 (Doran, Dunkel, Lu, Wagstaff 2020), Zenodo record 4002935."""

from hirise_imb.data.dataset import Archive, ClassSet, DataCard, Layout, NameGrammar

VARIANTS = ("r90", "r180", "r270", "fh", "fv", "brt")
"""Clockwise rotations, horizontal and vertical flip, random brightness."""

HIRISE = DataCard(
    name="hirise-v3_2",
    title="HiRISE labelled landmarks, version 3.2",
    classes=ClassSet(
        (
            "other",
            "crater",
            "dark dune",
            "slope streak",
            "bright dune",
            "impact ejecta",
            "swiss cheese",
            "spider",
        ),
        majority="other",
    ),
    image_size=227,
    channels=1,
    identity=NameGrammar(
        pattern=(
            r"(?P<landmark>(?P<source>[A-Z]{3}_[0-9]{6}_[0-9]{4})_RED-[0-9]{4})"
            rf"(?:-(?P<variant>{'|'.join(VARIANTS)}))?\.jpg"
        ),
        form="<SOURCE>_RED-<NNNN>[-<variant>].jpg",
        variants=VARIANTS,
    ),
    layout=Layout(
        label_file="labels-map-proj_v3_2.txt",
        split_file="labels-map-proj_v3_2_train_val_test.txt",
        class_file="landmarks_map-proj-v3_2_classmap.csv",
        image_folder="map-proj-v3_2",
    ),
    citation="Doran, G., Dunkel, E., Lu, S. and Wagstaff, K. (2020). Mars orbital image (HiRISE) labeled data set "
    "version 3.2. Zenodo. https://doi.org/10.5281/zenodo.4002935",
    licence="CC BY 4.0",
    archive=Archive(
        name="hirise-map-proj-v3_2.zip",
        address="https://zenodo.org/records/4002935/files/hirise-map-proj-v3_2.zip?download=1",
        size=911_235_740,
        md5="236d9c627db1a5970e77a01a8c8a035a",
        page="https://zenodo.org/records/4002935",
    ),
)
