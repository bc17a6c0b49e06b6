"""Every word of the window, in English and in Spanish. A type, so that none can be left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from eagle_spark.errors import Reason


@dataclass(frozen=True)
class Words:
    """One language; `{}` is filled in by `str.format`.

    Attributes:
        comma: between whole numbers and decimals.
        reviews: why a person has to look, by the name in the tables.
        reasons: why a file was rejected.
    """

    code: str
    language: str
    comma: str

    file: str
    open_image: str
    open_folder: str
    open_model: str
    save_overlay: str
    save_result: str
    leave: str
    view: str
    following: str
    preceding: str
    whole_window: str
    lungs_on_off: str
    languages: str
    help: str
    about: str
    about_text: str
    image_files: str
    all_files: str
    png_files: str
    json_files: str
    look_in: str
    file_type: str

    drop_here: str
    model_first: str
    loading: str
    working: str
    cannot_use: str
    cannot_use_model: str
    no_images: str
    cannot_open: str
    saved: str
    not_saved: str

    confidence: str
    needs_review: str
    no_review: str
    classes: str
    lungs: str
    of_image: str
    lung_sides: str
    opacity: str
    window: str
    window_hint: str
    reset: str
    model: str
    measured_on: str
    not_measured: str
    accuracy: str
    dice: str
    calibration: str
    interval: str
    digests: str
    this_image: str
    pixels: str
    spent: str
    memory: str
    position: str
    research: str

    reviews: Mapping[str, str]
    reasons: Mapping[Reason, str]

    def number(self, value: float, digits: int) -> str:
        return f"{value:.{digits}f}".replace(".", self.comma)

    def percent(self, share: float) -> str:
        return f"{self.number(100 * share, 1)} %"

    def chance(self, probability: float) -> str:
        """Return a probability as a percentage; rounding makes none certain or impossible."""
        if probability > 0.999:
            return f"> {self.percent(0.999)}"
        return f"< {self.percent(0.001)}" if probability < 0.001 else self.percent(probability)


ENGLISH = Words(
    code="en",
    language="English",
    comma=".",
    file="&File",
    open_image="Open &image…",
    open_folder="Open &folder…",
    open_model="Open &model…",
    save_overlay="Save &overlay as PNG…",
    save_result="Save &result as JSON…",
    leave="&Quit",
    view="&View",
    following="&Next image",
    preceding="&Previous image",
    whole_window="&Reset window",
    lungs_on_off="Show &lungs",
    languages="&Language",
    help="&Help",
    about="&About",
    about_text=(
        "<h3>eagle-view {}</h3>"
        "<p><b>Research use only.</b> Not a medical device; not for diagnosis or treatment of "
        "patients. The model names one of its classes for whatever it is shown, and knows no "
        "other disease.</p>"
        "<p>→ or Page Down: next image. ← or Page Up: previous image.<br>"
        "Drag on the image: up and down changes the level of the window of grey values, left and "
        "right its width. Double click: all grey values.<br>"
        "L: lungs on or off.</p>"
    ),
    image_files="X-ray images",
    all_files="All files",
    png_files="PNG images",
    json_files="JSON files",
    look_in="Look in:",
    file_type="Files of type:",
    drop_here="Drop an X-ray or a folder here",
    model_first="Choose a model folder: File, Open model",
    loading="Loading the model…",
    working="Working…",
    cannot_use="This file cannot be used",
    cannot_use_model="This model cannot be used",
    no_images="No images in {}",
    cannot_open="Cannot be opened",
    saved="Saved: {}",
    not_saved="Not saved: {}",
    confidence="confidence {}",
    needs_review="Needs review",
    no_review="No reason for review found",
    classes="Classes",
    lungs="Lungs",
    of_image="{} of the image",
    lung_sides="left of the image {}, right {}",
    opacity="Opacity",
    window="Window",
    window_hint="level {}, width {}",
    reset="Reset",
    model="Model",
    measured_on="{} test images of {} patients",
    not_measured="not measured",
    accuracy="accuracy",
    dice="Dice of the lungs",
    calibration="calibration error",
    interval="{} ({} to {})",
    digests="{}, files match their digests",
    this_image="Image",
    pixels="{} x {} pixels",
    spent="read {} ms, model {} ms",
    memory="memory {} MB",
    position="{} of {}",
    research="Research use only. Not a medical device.",
    reviews={
        "confidence": "the model is less sure than it should be",
        "novelty": "the image is unlike those that the model knows",
        "mask": "the lungs found have an unusual shape",
        "for_processing": "it is a raw image of the detector, not one to be read",
    },
    reasons={
        Reason.EMPTY_FILE: "the file is empty",
        Reason.UNREADABLE: "the file cannot be read",
        Reason.FILE_TOO_LARGE: "the file is too large",
        Reason.NOT_AN_IMAGE: "it is not an image of a kind that is known",
        Reason.TRUNCATED: "the file is cut off",
        Reason.CORRUPT: "the file is damaged",
        Reason.TOO_MANY_PIXELS: "the image has too many pixels",
        Reason.TOO_SMALL: "the image is too small",
        Reason.MULTIPLE_FRAMES: "the file holds several images",
        Reason.NOT_A_CHEST_XRAY: "it is not a chest X-ray",
        Reason.COLOUR: "the image is in colour",
        Reason.NO_DECODER: "nothing is installed here that reads it",
        Reason.NO_CONTRAST: "the image is of one grey",
    },
)

SPANISH = Words(
    code="es",
    language="Español",
    comma=",",
    file="&Archivo",
    open_image="Abrir &imagen…",
    open_folder="Abrir &carpeta…",
    open_model="Abrir &modelo…",
    save_overlay="Guardar la su&perposición como PNG…",
    save_result="Guardar el &resultado como JSON…",
    leave="&Salir",
    view="&Ver",
    following="Imagen &siguiente",
    preceding="Imagen &anterior",
    whole_window="&Restablecer la ventana",
    lungs_on_off="Mostrar los &pulmones",
    languages="&Idioma",
    help="A&yuda",
    about="&Acerca de",
    about_text=(
        "<h3>eagle-view {}</h3>"
        "<p><b>Solo para investigación.</b> No es un producto sanitario; no sirve para el "
        "diagnóstico ni el tratamiento de pacientes. El modelo asigna una de sus clases a "
        "cualquier cosa que se le muestre y no conoce ninguna otra enfermedad.</p>"
        "<p>→ o Av Pág: imagen siguiente. ← o Re Pág: imagen anterior.<br>"
        "Arrastrar sobre la imagen: hacia arriba y abajo cambia el nivel de la ventana de grises; "
        "hacia los lados, su anchura. Doble clic: todos los grises.<br>"
        "L: mostrar u ocultar los pulmones.</p>"
    ),
    image_files="Radiografías",
    all_files="Todos los archivos",
    png_files="Imágenes PNG",
    json_files="Archivos JSON",
    look_in="Buscar en:",
    file_type="Archivos de tipo:",
    drop_here="Suelte aquí una radiografía o una carpeta",
    model_first="Elija una carpeta de modelo: Archivo, Abrir modelo",
    loading="Cargando el modelo…",
    working="Procesando…",
    cannot_use="Este archivo no se puede usar",
    cannot_use_model="Este modelo no se puede usar",
    no_images="No hay imágenes en {}",
    cannot_open="No se puede abrir",
    saved="Guardado: {}",
    not_saved="No se ha guardado: {}",
    confidence="confianza {}",
    needs_review="Necesita revisión",
    no_review="No se ha hallado motivo de revisión",
    classes="Clases",
    lungs="Pulmones",
    of_image="{} de la imagen",
    lung_sides="izquierda de la imagen {}, derecha {}",
    opacity="Opacidad",
    window="Ventana",
    window_hint="nivel {}, anchura {}",
    reset="Restablecer",
    model="Modelo",
    measured_on="{} imágenes de prueba de {} pacientes",
    not_measured="sin medir",
    accuracy="exactitud",
    dice="Dice de los pulmones",
    calibration="error de calibración",
    interval="{} (de {} a {})",
    digests="{}, los archivos coinciden con sus huellas",
    this_image="Imagen",
    pixels="{} x {} píxeles",
    spent="lectura {} ms, modelo {} ms",
    memory="memoria {} MB",
    position="{} de {}",
    research="Solo para investigación. No es un producto sanitario.",
    reviews={
        "confidence": "el modelo está menos seguro de lo que debería",
        "novelty": "la imagen no se parece a las que el modelo conoce",
        "mask": "los pulmones hallados tienen una forma poco común",
        "for_processing": "es una imagen sin procesar del detector, no una para leer",
    },
    reasons={
        Reason.EMPTY_FILE: "el archivo está vacío",
        Reason.UNREADABLE: "el archivo no se puede leer",
        Reason.FILE_TOO_LARGE: "el archivo es demasiado grande",
        Reason.NOT_AN_IMAGE: "no es una imagen de un tipo conocido",
        Reason.TRUNCATED: "el archivo está cortado",
        Reason.CORRUPT: "el archivo está dañado",
        Reason.TOO_MANY_PIXELS: "la imagen tiene demasiados píxeles",
        Reason.TOO_SMALL: "la imagen es demasiado pequeña",
        Reason.MULTIPLE_FRAMES: "el archivo contiene varias imágenes",
        Reason.NOT_A_CHEST_XRAY: "no es una radiografía de tórax",
        Reason.COLOUR: "la imagen es en color",
        Reason.NO_DECODER: "aquí no hay instalado nada que la lea",
        Reason.NO_CONTRAST: "la imagen es de un solo gris",
    },
)

LANGUAGES = {words.code: words for words in (ENGLISH, SPANISH)}


def words_of(code: str) -> Words:
    """Return the language of a code such as `es` or `es_MX`; English for any other."""
    return LANGUAGES.get(code[:2].lower(), ENGLISH)
